"""Exercise 21.16: generation with and without a key/value cache: the same tokens, and what the cache saves."""
