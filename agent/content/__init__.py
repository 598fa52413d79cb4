"""Images from node to node, so that a cluster needs no registry.

inventory.py   what this node holds, told to managers        service.py, places.py   content served to other nodes
images.py      get an image: node, cluster, registry         source.py, peers.py     content fetched from other nodes
"""
