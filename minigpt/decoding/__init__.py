"""Writing text with a model: sampling, beams, speculation, infilling, watermarks, streams.

Begin with ``sampling``: the warping of a distribution, and the loop that draws from it token by token.
"""
