"""Exercise 21.4: layer norm after or before each sub-block: gradients, training, and what depth is worth."""
