"""Cached tasks, from corpora to answers.

``steps`` holds the tasks, ``failures`` how they can fail; ``exercise`` says what an exercise is, ``context`` what it is
given, ``study`` how variants are compared. ``recipes``, ``sources``, ``models``, ``cache`` and ``tracking`` are the
rooms; ``exercises`` has one folder per exercise.
"""
