"""Exercise 21.23: one paragraph as characters, as GPT-2's byte pairs and as words, and what each costs to learn.

Losses per token cannot be compared between tokenizers, so everything is in bits per byte of the text. An unknown word
costs a word model little and loses the word, so it is also charged for spelling it.
"""
