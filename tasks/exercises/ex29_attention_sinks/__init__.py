"""Exercise 21.29: attention sinks, and reading a long text with and without them in the cache."""
