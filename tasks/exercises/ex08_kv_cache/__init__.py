"""Exercise 21.8: what a key/value cache costs in memory and saves in arithmetic, in closed form and counted."""
