"""Exercise 21.15: a character-level mini-GPT on a real text, heard after every epoch."""
