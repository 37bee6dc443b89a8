"""Exercise 21.22: the mini-GPT in three sizes, at equal steps and at equal time."""
