"""Decoder-only language models from scratch, in plain PyTorch. Needs nothing of this project.

The modules here are the core. Begin with ``model``, its ``config`` beside it; then, in reading order, what it calls:
``positions``, ``masks``, ``window``, ``cache``; and what trains it: ``tokenizers``, ``data``, ``objectives``,
``optimizers``, ``train``. Around it: ``decoding`` writes text, ``evaluation`` scores it, ``analysis`` looks inside,
``pretrained`` works with models of Transformers, ``cost`` counts.
"""
