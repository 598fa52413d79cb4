"""Images found again by their content, when the list that names them is damaged."""

from contextlib import suppress

from swarmd.runtime.errors import Invalid, NotFound
from swarmd.runtime.images import image as images
from swarmd.runtime.images.blobs import Blobs
from swarmd.runtime.images.layers import Layers
from swarmd.runtime.images.manifests import LARGEST, Descriptor, Index, Manifest, is_index, parse
from swarmd.runtime.images.names import Entry


def recovered(blobs: Blobs, layers: Layers) -> dict[str, Entry]:
    """Entries, without names, of all whole images among the blobs; one that an index lists is part of that one."""
    entries: dict[str, Entry] = {}
    parts: set[str] = set()
    for digest in blobs.digests():
        with suppress(NotFound, Invalid):  # no document, or not of a whole image
            size = blobs.size(digest)
            if size > LARGEST:
                continue
            data = blobs.read(digest)
            lists = is_index("", data, digest)
            document = parse(data, Index, digest) if lists else parse(data, Manifest, digest)
            target = Descriptor(media_type=document.media_type, digest=digest, size=size)
            images.read(blobs, layers, Entry(target))
            entries[digest] = Entry(target)
            if isinstance(document, Index):
                parts |= {one.digest for one in document.manifests}
    return {digest: entry for digest, entry in entries.items() if digest not in parts}
