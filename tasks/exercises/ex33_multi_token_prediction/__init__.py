"""Exercise 21.33: several tokens predicted at once, the first head judged alone, and the others put to use."""
