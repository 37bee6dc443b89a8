"""Exercise 21.20: the geometry of learned position embeddings, beside sinusoids and beside noise."""
