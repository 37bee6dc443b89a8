"""Exercise 21.14: nucleus sampling in five visible steps, against two reference implementations."""
