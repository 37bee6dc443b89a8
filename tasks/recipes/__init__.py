"""What is trained: ``recipe`` is the type, ``catalogue`` the named recipes, ``profiles`` how they scale."""
