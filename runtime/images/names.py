"""Which images there are and what they are called: the index.json of an OCI image layout, replaced whole.

An image exists from the moment index.json names its target, a manifest or an index.  A target without a name has an
entry too: it was called something until another image took the name.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.manifests import Descriptor, Index

_REF = "io.containerd.image.name"
_UPDATED = "org.swarmd.updated"


class Entry(msgspec.Struct, frozen=True):
    """updated: ns since the epoch, when it last came or got a name."""

    target: Descriptor
    refs: tuple[str, ...] = ()
    updated: int = 0


def read(root: Path) -> dict[str, Entry]:
    """Entries by the digests of their targets. Raises Invalid for a list that can't be read."""
    try:
        data = (root / "index.json").read_bytes()
    except FileNotFoundError:
        return {}
    entries: dict[str, Entry] = {}
    try:
        for descriptor in msgspec.json.decode(data, type=Index).manifests:
            notes = descriptor.annotations or {}
            had = entries.get(descriptor.digest)
            refs = (had.refs if had else ()) + ((notes[_REF],) if _REF in notes else ())
            entries[descriptor.digest] = Entry(descriptor.bare, refs, int(notes.get(_UPDATED, "0")))
    except ValueError as error:  # of msgspec too
        raise Invalid(f"the list of images {root / 'index.json'} is damaged: {error}") from None
    return entries


def set_aside(root: Path) -> None:
    """Keep a list that can't be read, for whoever wants to look for names in it."""
    aside = root / "index.json.damaged"
    aside.unlink(missing_ok=True)
    os.link(root / "index.json", aside)


def write(root: Path, entries: Mapping[str, Entry], making: Path) -> None:
    """Durable when it returns. making: a name to write to first, on the same file system."""
    descriptors = [
        msgspec.structs.replace(
            entry.target, annotations={**({_REF: ref} if ref else {}), _UPDATED: str(entry.updated)}
        )
        for entry in entries.values()
        for ref in entry.refs or ("",)
    ]
    replace(root / "index.json", msgspec.json.encode(Index(manifests=tuple(descriptors))), making)


def replace(path: Path, data: bytes, making: Path) -> None:
    """Durable when it returns, or as it was; making as above."""
    try:
        with making.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        making.rename(path)
    finally:
        making.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def named(entries: Mapping[str, Entry], target: Descriptor, refs: Iterable[str], now: int) -> dict[str, Entry]:
    """With these names given to a target; they leave the ones that had them."""
    given = tuple(dict.fromkeys(refs))
    changed = {
        digest: msgspec.structs.replace(entry, refs=tuple(ref for ref in entry.refs if ref not in given))
        for digest, entry in entries.items()
    }
    had = changed.get(target.digest, Entry(target.bare))
    changed[target.digest] = Entry(target.bare, (*had.refs, *given), now)
    return changed
