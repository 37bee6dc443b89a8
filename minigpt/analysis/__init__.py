"""Looking inside: attention heads, induction, sinks, positions, depth, receptive fields.

Begin with ``head_scores``: what an attention head does, as a number.
"""
