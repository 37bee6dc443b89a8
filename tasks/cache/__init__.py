"""The cache: ``keys`` decide what reruns, ``store`` keeps results; ``locks``, ``leases`` let one process work on a key.

``objects`` reads and writes what is stored, with ``patience``; ``schema`` says what may stand there; ``mirror`` takes
checkpoints over.

``carry`` takes results from store to store, in an ``archive``.
"""
