"""Exercise 21.30: prefix language modelling: full attention on a prefix, causal attention on the rest."""
