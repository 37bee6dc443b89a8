"""Exercise 21.28: grouped-query attention: what sharing key/value heads saves, and what it costs."""
