"""Exercise 21.19: the repetition penalty, on sampled and on greedy text, and what it costs."""
