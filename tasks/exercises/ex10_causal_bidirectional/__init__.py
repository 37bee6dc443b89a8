"""Exercise 21.10: a causal and a bidirectional model of one size, on classification, on gaps and on writing."""
