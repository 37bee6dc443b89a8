"""Exercise 21.32: a watermark in sampled text, its detector at a fixed false-positive rate, and what it costs."""
