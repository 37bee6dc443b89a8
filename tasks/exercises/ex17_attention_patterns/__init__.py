"""Exercise 21.17: attention maps of five sentences, heads that specialise, and induction heads put to three tests."""
