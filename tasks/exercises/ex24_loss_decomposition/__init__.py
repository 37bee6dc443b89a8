"""Exercise 21.24: the loss of every token of a passage; of words by class and place, with the position held equal."""
