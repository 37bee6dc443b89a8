"""Exercise 21.13: a sampler with temperature and top-k from scratch, tried a thousand times and tested on many more."""
