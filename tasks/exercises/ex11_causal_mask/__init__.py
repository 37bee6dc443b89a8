"""Exercise 21.11: the causal mask from scratch, and what shows that nothing leaks from the future."""
