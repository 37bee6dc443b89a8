"""The soak: chapters on workers, whose processes, servers and storage fail again and again.

``python -m tests.soak`` (``make soak``) runs it for minutes, ``test_soak.py`` for a few faults.
"""
