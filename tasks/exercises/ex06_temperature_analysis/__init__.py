"""Exercise 21.6: what temperature does to a softmax over four tokens."""
