"""Exercise 21.21: the pretrained model trained further on poetry, and what it gains and forgets."""
