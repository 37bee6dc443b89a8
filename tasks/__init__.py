"""Cached tasks: corpora, training, evaluation, tracking and the chapter's exercises."""
