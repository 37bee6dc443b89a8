"""Decoder-only language models from scratch, in plain PyTorch. Needs nothing of this project.

The modules here are the core, in reading order: ``config``, ``model``, ``masks``, ``positions``, ``cache``,
``tokenizers``, ``data``, ``objectives``, ``train``. Around it: ``decoding`` writes text, ``evaluation`` scores it,
``analysis`` looks inside, ``pretrained`` works with models of Transformers, ``cost`` counts. Begin with ``model``.
"""
