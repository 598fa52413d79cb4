"""Unpacks layers into directories and packs directories into layers, in processes of their own.

`Workers` (workers.py) is what the store calls; each worker (worker.py) reads, hashes and decompresses in one thread
and writes files in another, so that a layer is unpacked while it still comes, on two processors, and what an archive
can do to a process it does to one that holds nothing.
"""
