"""Exercise 21.26: sliding-window attention: the mask, what it saves when blocks are really skipped, its reach."""
