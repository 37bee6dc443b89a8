"""Exercise 21.34: weights in 8 to 2 bits, simulated and scored; and a model that really computes in int8, timed."""
