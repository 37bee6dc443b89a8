"""Exercise 21.3: GPT-1, GPT-2 and GPT-3 side by side, the published numbers beside computed ones."""
