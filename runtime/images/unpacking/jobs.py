"""What the daemon and its workers say to one another, a line of JSON each.

    daemon                               worker
    job                    ─────────▶
    bytes that are there   ─────────▶    (for a file that grows, as often as it does)
    null                   ─────────▶    (that is all)
                           ◀─────────    answer

A worker that answered with a failure is gone after it.
"""

import os
from typing import Literal

import msgspec

from swarmd.runtime.images.unpacking.tar import shown
from swarmd.runtime.model import Struct

Compression = Literal["gzip", "zstd", ""]


class Unpacked(Struct, frozen=True, tag="unpacked"):
    """digest and size are of the blob as it came, diff_id of the tar in it; files_size: bytes of all files."""

    digest: str
    size: int
    diff_id: str
    files_size: int
    compression: str = ""


class Indexed(Struct, frozen=True, tag="indexed"):
    compression: str


class Packed(Struct, frozen=True, tag="packed"):
    """digest and size are of the blob, diff_id of the tar in it."""

    digest: str
    size: int
    diff_id: str


FailedKind = Literal["invalid", "exhausted", "other"]


class Failed(Struct, frozen=True, tag="failed"):
    kind: FailedKind
    message: str


class UnpackJob(Struct, frozen=True, tag="unpack"):
    """into: an empty directory, or "" to take the digests only."""

    blob: bytes
    into: bytes
    grows: bool = False


class IndexJob(Struct, frozen=True, tag="index"):
    """See Workers.index."""

    blob: bytes
    plain: bytes
    list: bytes
    grows: bool = False


class PackJob(Struct, frozen=True, tag="pack"):
    """See Workers.pack."""

    directory: bytes
    blob: bytes
    paths: tuple[bytes, ...] | None = None
    compression: Compression = "gzip"
    clamp: int | None = None
    owner_offset: int = 0


Answer = Unpacked | Indexed | Packed | Failed
Job = UnpackJob | IndexJob | PackJob

encode = msgspec.json.Encoder().encode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_job = msgspec.json.Decoder(Job).decode
decode_growth = msgspec.json.Decoder(int | None).decode


def about(job: Job) -> str:
    """What a job is about, for a sentence."""
    return f"the {'build context' if isinstance(job, IndexJob) else 'layer'} {shown(os.fsdecode(job.blob))}"
