"""Prefect flows that run the chapter, and its command line."""
