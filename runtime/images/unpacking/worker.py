"""The process that unpacks and packs layers and lists contexts: one job after another from its input, until that ends.

One thread hashes and decompresses what comes, the other hashes the tar and writes files.  Run with `-X utf8`: names
are bytes, whatever the daemon's locale is.
"""

import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from swarmd.runtime.errors import Exhausted, Invalid, RuntimeFault
from swarmd.runtime.images.unpacking import indexing, jobs, packing, writer
from swarmd.runtime.images.unpacking.ahead import Ahead
from swarmd.runtime.images.unpacking.compression import decompressed
from swarmd.runtime.images.unpacking.tar import Reader, shown
from swarmd.runtime.stages import files, syscalls

_SWITCH = 0.0005  # s: the decompressor must get going again soon after each piece


class Growing:
    """A file that may still grow, as far as we are told that it has."""

    def __init__(self, path: bytes, grows: bool) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._known: int | None = 0 if grows else None  # None: all that there is
        self.size = 0

    def read(self, size: int) -> bytes:
        while self._known is not None and self.size >= self._known:
            line = sys.stdin.buffer.readline()
            if not line:
                os._exit(1)  # the daemon has gone
            self._known = jobs.decode_growth(line)
        if self._known is not None:
            size = min(size, self._known - self.size)
        data = os.read(self._file, size)
        self.size += len(data)
        if self._known is not None and not data:
            raise Invalid("the file is shorter than it was said to be: something has cut it")
        return data

    def close(self) -> None:
        os.close(self._file)


def unpack(job: jobs.UnpackJob, source: Growing) -> jobs.Unpacked:
    blob, content = hashlib.sha256(), hashlib.sha256()

    def read(size: int) -> bytes:
        data = source.read(size)
        blob.update(data)
        return data

    def hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            content.update(piece)
            yield piece

    compression, pieces = decompressed(read)
    tar = hashed(iter(Ahead(pieces)))
    files_size = 0
    if job.into:
        files_size = writer.unpack(Reader(tar), os.fsdecode(job.into))
    else:
        for _ in tar:
            pass
    return jobs.Unpacked(
        digest=f"sha256:{blob.hexdigest()}",
        size=source.size,
        diff_id=f"sha256:{content.hexdigest()}",
        files_size=files_size,
        compression=compression,
    )


def answer(job: jobs.Job) -> jobs.Answer:
    about = jobs.about(job)
    try:
        if isinstance(job, jobs.PackJob):
            return packing.pack(job)
        with contextlib.closing(Growing(job.blob, job.grows)) as source:
            return unpack(job, source) if isinstance(job, jobs.UnpackJob) else indexing.index(job, source.read)
    except Invalid as error:
        return jobs.Failed(kind="invalid", message=str(error))
    except Exhausted as error:
        return jobs.Failed(kind="exhausted", message=str(error))
    except RuntimeFault as error:
        return jobs.Failed(kind="other", message=str(error))
    except OSError as error:
        if error.errno in files.FULL:
            todo = "free space on it, or remove images with `image prune`"
            return jobs.Failed(kind="exhausted", message=f"the disk of the images is full ({error.strerror}): {todo}")
        where = f"{shown(os.fsdecode(error.filename))}: " if error.filename else ""
        return jobs.Failed(kind="other", message=f"{about} can't be worked on: {where}{error.strerror}")
    except MemoryError:
        return jobs.Failed(kind="exhausted", message=f"there is not enough memory for {about}")


def main() -> None:
    # Also in the middle of a job: what is half-made then is for the next daemon to remove.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.set_name("swarmd-layers")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # rather this than the daemon
    os.umask(0)
    sys.setswitchinterval(_SWITCH)
    while line := sys.stdin.buffer.readline():
        said = answer(jobs.decode_job(line))
        os.write(sys.stdout.fileno(), jobs.encode(said) + b"\n")
        if isinstance(said, jobs.Failed):
            os._exit(0)  # without the thread that may still wait to hear how far the file has grown


if __name__ == "__main__":
    main()
