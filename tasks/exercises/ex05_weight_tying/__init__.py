"""Exercise 21.5: one matrix for embedding and unembedding: what it saves, what it ties together, what it costs."""
