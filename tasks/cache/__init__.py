"""The cache: ``keys`` decide what reruns, ``store`` keeps results, ``locks`` let one process work on a key.

``carry`` takes results from store to store, in an ``archive``.
"""
