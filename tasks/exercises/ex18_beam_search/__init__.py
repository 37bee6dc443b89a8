"""Exercise 21.18: beam search against greedy decoding and sampling, judged by another model and by repetition."""
