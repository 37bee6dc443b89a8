"""Decoder-only language models from scratch, in plain PyTorch."""
