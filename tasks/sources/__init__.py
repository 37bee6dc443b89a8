"""Where texts, vocabularies and pretrained weights come from.

``resolve`` chooses a bundle of ``references``; ``embedded``, ``hub`` and ``user`` fetch; ``corpora`` cuts and encodes.
"""
