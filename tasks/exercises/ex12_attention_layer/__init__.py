"""Exercise 21.12: one head of causal self-attention as a layer of its own, equal to two other implementations."""
