"""Prefect flows that run the chapter, and its command line.

``chapter`` has the three flows, ``cli`` the commands, ``options`` what both can be told; ``execution`` builds and runs
the graph of steps. ``servers`` starts Prefect's and MLflow's, each a ``shared_server`` under a ``guard``. ``pools``,
``recovery``, ``deployments`` and ``plugin`` are what Prefect's servers and workers know by name.
"""
