"""The tasks of this node on disk, so that a node without managers keeps its tasks over a restart.

    ID.task     as a manager assigned it
    ID.status   how far this node has come with it, which is ahead of what managers know

**Invariant:** a file is whole or not there.  Who runs what is read from here is the worker.  A disk that takes no task
does not end what runs: it is said once, and managers name their tasks again after a restart.  One that takes no status
is for the task's runner to know, which starts nothing that is not on disk.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError

from swarmd.proto.identity import write_atomically
from swarmd.proto.objects_pb2 import Task, TaskStatus

log = logging.getLogger(__name__)
TASK = ".task"
STATUS = ".status"
M = TypeVar("M", Task, TaskStatus)


class Assignments:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._complaining = True  # of the first failure in a row

    def save(self, task: Task) -> None:
        """What a manager says; the status is then that of `save_status`, if there is one."""
        path = self._path(task.id, TASK)
        try:
            write_atomically(path, task.SerializeToString())
            self._complaining = True
        except OSError as error:
            if self._complaining:
                log.error("tasks of this node are not kept over a restart: %s: %s", path, error.strerror)
            self._complaining = False

    def save_status(self, task_id: str, status: TaskStatus) -> None:
        """Raises OSError."""
        write_atomically(self._path(task_id, STATUS), status.SerializeToString())

    def drop(self, task_id: str) -> None:
        self._path(task_id, TASK).unlink(missing_ok=True)
        self._path(task_id, STATUS).unlink(missing_ok=True)

    def load(self) -> Sequence[Task]:
        tasks = {path.stem: task for path in self._files(TASK) if (task := _read(path, Task)) is not None}
        for path in self._files(STATUS):
            if path.stem not in tasks:
                path.unlink()  # written while its task was dropped
            elif (status := _read(path, TaskStatus)) is not None:
                tasks[path.stem].status.CopyFrom(status)
        return list(tasks.values())

    def _files(self, suffix: str) -> Sequence[Path]:
        return sorted(self._directory.glob(f"*{suffix}"))

    def _path(self, task_id: str, suffix: str) -> Path:
        return self._directory / f"{task_id}{suffix}"


def _read(path: Path, kind: type[M]) -> M | None:
    """None for a file that a damaged disk left unreadable: managers name its task again."""
    try:
        return kind.FromString(path.read_bytes())
    except DecodeError:
        log.warning("assignment %s can't be read and is left out", path)
        return None
