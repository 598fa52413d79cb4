"""What this command remembers of a container between two calls: a directory for each, <root>/<id>.

state.json    what was made: pid with its start time, bundle, cgroup
gate          the FIFO its init waits at until `start`
started       there once `start` was called
seccomp.bpf   the compiled filter
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarmd.runtime.errors import Conflict, Invalid, NotFound
from swarmd.runtime.stages import files

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


@dataclass(slots=True)
class State:
    id: str
    bundle: str
    pid: int = 0
    pid_start: int = 0
    cgroup_parent: str = ""
    cgroup_id: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        return bool(self.pid) and files.start_time(self.pid) == self.pid_start


class Directory:
    def __init__(self, root: Path, id: str) -> None:
        if not id or set(id) - _ALLOWED or id in (".", ".."):
            raise Invalid(f"container id {id!r} may hold letters, digits and _ + - . only")
        self.id, self.path = id, root / id

    @property
    def gate(self) -> Path:
        return self.path / "gate"

    def make(self, state: State) -> None:
        self.path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"container {self.id} exists already") from None
        os.mkfifo(self.gate, 0o600)
        self.save(state)

    def save(self, state: State) -> None:
        files.replace(str(self.path / "state.json"), json.dumps(asdict(state)).encode())

    def load(self) -> State:
        try:
            return State(**json.loads((self.path / "state.json").read_bytes()))
        except FileNotFoundError:
            raise NotFound(f"container {self.id} does not exist") from None

    def mark_started(self) -> None:
        (self.path / "started").touch()

    def status(self, state: State) -> str:
        if not state.pid:
            return "creating"
        if not state.alive:
            return "stopped"
        return "running" if (self.path / "started").exists() else "created"

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def shown(directory: Directory, state: State) -> dict[str, Any]:
    """State, as the specification has it."""
    status = directory.status(state)
    return {
        "ociVersion": "1.0.2",
        "id": state.id,
        "status": status,
        "pid": 0 if status == "stopped" else state.pid,
        "bundle": state.bundle,
        "annotations": state.annotations,
    }
