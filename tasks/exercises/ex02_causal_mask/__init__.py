"""Exercise 21.2: the causal mask of eight positions, and what happens when it is forgotten in training."""
