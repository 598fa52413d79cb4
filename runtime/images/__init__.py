"""Images on this host; see `store.py`.  Imports nothing: the workers of `unpacking/` are to be small and quick."""
