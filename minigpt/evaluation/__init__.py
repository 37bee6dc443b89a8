"""Scoring: losses and entropies of models, diversity and quality of texts, and the statistics of comparisons.

Begin with ``evaluate`` (loss over a corpus) and ``statistics`` (what differs, and what is noise).
"""
