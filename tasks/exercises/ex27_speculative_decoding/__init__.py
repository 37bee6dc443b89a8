"""Exercise 21.27: speculative decoding, its output proved to be the target's own, its speed beside its cost model."""
