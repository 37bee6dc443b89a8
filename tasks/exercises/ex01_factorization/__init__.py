"""Exercise 21.1: a sentence as a product of conditionals, written out, counted, and evaluated by real models."""
