"""Lists what is in the archive of a build context, with a digest of each file's content, while it comes.

The list is that of stages/snapshot.py; offsets are those of contents in the archive as it is when it is not compressed.
Nothing is unpacked here: a context's files are copied from the archive, those that a step wants.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking.ahead import Ahead
from swarmd.runtime.images.unpacking.compression import Read, decompressed
from swarmd.runtime.images.unpacking.jobs import Indexed, IndexJob
from swarmd.runtime.images.unpacking.tar import Kind, Reader, shown

Line = tuple[str, str, int, int, int, int, int, str, str, int]


def index(job: IndexJob, read: Read) -> Indexed:
    """read: gives the archive, compressed or not. Raises Invalid for what is no archive, or none for a build."""
    compression, pieces = decompressed(read)
    if compression:
        pieces = _written(iter(Ahead(pieces)), job.plain)
    encode = msgspec.json.Encoder().encode
    with Path(os.fsdecode(job.list)).open("wb") as out:
        for line in _lines(Reader(pieces)):
            out.write(encode(line))
            out.write(b"\n")
    return Indexed(compression=compression)


def _written(pieces: Iterator[bytes], path: bytes) -> Iterator[bytes]:
    with Path(os.fsdecode(path)).open("wb") as out:
        for piece in pieces:
            out.write(piece)
            yield piece


def _lines(reader: Reader) -> Iterator[Line]:
    known: dict[str, Line] = {}
    for entry in reader:
        path = _inside(entry.name)
        name, link, digest, offset = _by_bytes(path), "", "", 0
        if entry.kind is Kind.LINK:  # a file of its own in the image
            if (other := known.get(_inside(entry.target))) is None:
                raise Invalid(f"{shown(path)} is a hard link to nothing")
            line: Line = (name, *other[1:])
        else:
            if entry.kind is Kind.FILE:
                if entry.segments is not None:
                    raise Invalid(f"{shown(path)} is stored as a sparse file: pack it without")
                kind, offset, content = "f", reader.offset, hashlib.sha256()
                for piece in reader.content():
                    content.update(piece)
                digest = content.hexdigest()
            elif entry.kind is Kind.DIRECTORY:
                kind = "d"
            elif entry.kind is Kind.SYMLINK:
                kind, link = "l", _by_bytes(entry.target)
            elif entry.kind is Kind.FIFO:
                kind = "p"
            else:
                raise Invalid(f"{shown(path)} is a device: leave it out")
            line = (name, kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, digest, link, offset)
        known[path] = line
        yield line
    if not reader.offset:
        raise Invalid("it is empty, and not even an empty tar archive")


def _inside(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"{shown(name)} leads out of it")
    return "/".join(parts)


def _by_bytes(name: str) -> str:
    """A character for each byte: JSON has no others than those of Unicode."""
    return name if name.isascii() else os.fsencode(name).decode("latin-1")
