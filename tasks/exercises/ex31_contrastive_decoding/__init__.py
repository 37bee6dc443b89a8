"""Exercise 21.31: contrastive decoding by the book's formula and by the paper's, against sampling of equal entropy."""
