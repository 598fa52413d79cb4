"""A container's directory: what is written there, by whom, and what it says after a restart.

    state.json    the daemon: what was asked and what has been observed
    config.json, hosts, hostname, resolv.conf, seccomp.bpf   the daemon, at each start
    run.json, exit.json, container.log*, attach.sock         the shim
    upper, work, rootfs                                      the overlay

Invariant: run.json is there exactly while a start has not been followed to its end in state.json.  A directory whose
name begins with a dot was being made or removed, and is nobody's.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from swarmd.runtime.model import ContainerState, Exit, Struct
from swarmd.runtime.stages import files


class Record(Struct, frozen=True):
    """wanted: the user has started it and not stopped it, so its restart policy applies."""

    state: ContainerState
    wanted: bool = False


class Run(Struct, frozen=True):
    """run.json; pid is 0 until the program runs."""

    boot: str
    shim: int
    shim_start: int
    pid: int = 0
    pid_start: int = 0
    started: int = 0

    @property
    def alive(self) -> bool:
        return self.boot == files.boot_id() and files.start_time(self.shim) == self.shim_start


class Directory:
    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self, record: Record) -> None:
        """Make it whole or not at all."""
        draft = self.path.with_name(f".new-{self.path.name}")
        try:
            for name in ("upper", "work", "rootfs"):
                (draft / name).mkdir(mode=0o755, parents=True)
            draft.chmod(0o711)
            files.replace(str(draft / "state.json"), msgspec.json.encode(record))
            draft.rename(self.path)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        files.sync_directory(str(self.path.parent))

    def save(self, record: Record, durable: bool = True) -> None:
        files.replace(str(self.path / "state.json"), msgspec.json.encode(record), durable)

    def run(self) -> Run | None:
        try:
            return msgspec.json.decode((self.path / "run.json").read_bytes(), type=Run)
        except FileNotFoundError:
            return None

    def exit(self) -> Exit | None:
        try:
            return msgspec.json.decode((self.path / "exit.json").read_bytes(), type=Exit)
        except FileNotFoundError:
            return None

    def forget_run(self) -> None:
        for name in ("run.json", "exit.json"):
            (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        gone = self.path.with_name(f".gone-{self.path.name}")
        self.path.rename(gone)
        shutil.rmtree(gone)


def load_all(root: Path) -> Iterator[tuple[Directory, Record]]:
    """Read every container's record, and remove what was half made or half removed."""
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            shutil.rmtree(path)
        else:
            yield Directory(path), msgspec.json.decode((path / "state.json").read_bytes(), type=Record)
