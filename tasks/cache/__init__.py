"""The cache: ``keys`` decide what reruns, ``store`` keeps results, ``locks`` let one process work on a key."""
