"""Prefect flows that run the chapter, and its command line.

``chapter`` has the three flows, ``cli`` the commands; ``execution`` builds and runs the graph of steps. ``pools``,
``recovery``, ``deployments`` and ``plugin`` are what Prefect's servers and workers know by name.
"""
