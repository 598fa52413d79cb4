"""The tasks of this node on disk: one file each, so that a node without managers keeps its tasks over a restart.

**Invariant:** a file is whole or not there.  Who runs what is read from here is the worker.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from swarmd.proto.identity import write_atomically
from swarmd.proto.objects_pb2 import Task

log = logging.getLogger(__name__)
SUFFIX = ".task"


class Assignments:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, task: Task) -> None:
        write_atomically(self._path(task.id), task.SerializeToString())

    def drop(self, task_id: str) -> None:
        self._path(task_id).unlink(missing_ok=True)

    def load(self) -> Sequence[Task]:
        return [task for path in sorted(self._directory.glob(f"*{SUFFIX}")) if (task := _read(path)) is not None]

    def _path(self, task_id: str) -> Path:
        return self._directory / f"{task_id}{SUFFIX}"


def _read(path: Path) -> Task | None:
    """None for a file that a damaged disk left unreadable: managers name its task again."""
    try:
        return Task.FromString(path.read_bytes())
    except DecodeError:
        log.warning("assignment %s can't be read and is left out", path)
        return None
