"""Builds images of Dockerfiles; see `solver.py`."""
