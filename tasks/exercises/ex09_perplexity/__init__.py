"""Exercise 21.9: what a perplexity says, and what it says only together with its tokenizer and its text."""
