"""Exercise 21.25: rotary position embeddings, against learned ones, and beyond the length they were trained on."""
