"""Exercise 21.35: students taught by a teacher's distribution against students taught by the text alone."""
