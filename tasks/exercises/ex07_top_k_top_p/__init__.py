"""Exercise 21.7: top-k against nucleus sampling on one distribution, and where each of them goes wrong."""
