"""A container's directory: what is written there, by whom, and what it says after a restart.

    state.json    the daemon: what was asked and what has been observed, synced
    observed.json the same with what was observed since, not synced: a host that goes down may leave it empty, or old
    config.json, hosts, hostname, resolv.conf, seccomp.bpf   the daemon, at each start
    run.json, exit.json, container.log*, attach.sock         the shim
    upper, work, rootfs                                      the overlay

Invariant: run.json is there exactly while a start has not been followed to its end in state.json.  A directory whose
name begins with a dot was being made or removed, and is nobody's.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from swarmd.runtime.model import ContainerState, Exit, Phase, Struct
from swarmd.runtime.stages import files

_LOG = logging.getLogger(__name__)
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x20000  # linux/fs.h


class Record(Struct, frozen=True):
    """wanted: the user has started it and not stopped it, so its restart policy applies.

    version: grows with each save.
    boot, begun: of a start that is under way, in which boot of the host it was begun, and when in ns.
    """

    state: ContainerState
    wanted: bool = False
    version: int = 0
    boot: str = ""
    begun: int = 0


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


# A run whose own record is lost with the host that it was on.
BEFORE_THE_CRASH = Run(boot="", shim=0, shim_start=0)


class Directory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced = 0  # the version in state.json
        self._syncing = threading.Lock()

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

    def save(self, record: Record, durable: bool) -> None:
        """May be called in a thread: an older version does not take the place of a newer one."""
        # Two files: one that is not synced must never take the place of one that is.
        if not durable:
            files.replace(str(self.path / "observed.json"), msgspec.json.encode(record), durable=False)
            return
        with self._syncing:
            if record.version > self._synced:
                files.replace(str(self.path / "state.json"), msgspec.json.encode(record))
                self._synced = record.version

    def record(self) -> Record:
        """Raises OSError or msgspec.DecodeError for one that can't be read."""
        saved = msgspec.json.decode((self.path / "state.json").read_bytes(), type=Record)
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            seen = msgspec.json.decode((self.path / "observed.json").read_bytes(), type=Record)
            return max(saved, seen, key=lambda record: record.version)
        return saved

    def run(self) -> Run | None:
        try:
            return msgspec.json.decode((self.path / "run.json").read_bytes(), type=Run)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError:  # the host went down before it was on the disk
            return BEFORE_THE_CRASH

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
        try:
            shutil.rmtree(gone)
        except OSError as error:
            _LOG.error("what is left of a removed container is removed when swarmd starts again: %s", error)


class Ledger:
    """What is known of one container, in memory and in its directory."""

    def __init__(self, directory: Directory, record: Record) -> None:
        self.directory, self.record = directory, record

    @property
    def state(self) -> ContainerState:
        return self.record.state

    @property
    def running(self) -> bool:
        return self.state.phase is Phase.RUNNING

    def begin(self) -> None:
        """A start: what a host that goes down must not forget of it; to be saved while it goes on."""
        self.record = msgspec.structs.replace(
            self.record, version=self.record.version + 1, boot=files.boot_id(), begun=time.time_ns()
        )

    def observe(self, durable: bool, /, **changes: object) -> None:
        if durable or any(getattr(self.state, name) != value for name, value in changes.items()):
            self.save(durable, self.record.wanted, **changes)

    def save(self, durable: bool, wanted: bool, /, **changes: object) -> None:
        self.note(wanted, **changes)
        try:
            self.directory.save(self.record, durable)
        except OSError as error:
            if error.errno not in files.FULL:
                raise
            # It is so all the same, and with the next save it is said: a full disk must not keep a stop from ending.
            where = self.directory.path
            _LOG.error("container %s: its state can't be saved, the disk of %s is full", self.state.id, where)

    def note(self, wanted: bool, /, **changes: object) -> None:
        """Not saved."""
        state = msgspec.structs.replace(self.state, **changes)
        record = msgspec.structs.replace(self.record, state=state, wanted=wanted, version=self.record.version + 1)
        # Either is the outcome of a start that was under way.
        over = "phase" in changes or wanted != self.record.wanted
        self.record = msgspec.structs.replace(record, boot="", begun=0) if over else record

    def change(self, **changes: object) -> None:
        """What a user wants otherwise from now on: saved, or not so."""
        state = msgspec.structs.replace(self.state, **changes)
        record = msgspec.structs.replace(self.record, state=state, version=self.record.version + 1)
        self.directory.save(record, True)
        self.record = record


def make_root(root: Path) -> None:
    """Make the directory of all containers, and ask for theirs to be spread over the disk, see chattr(1) of T.

    Else ext4 has them all in one place, where without a journal each new file is looked for beyond all that were
    deleted of late; half the work of many starts can be that. Other file systems have no such question.
    """
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(4)), sys.byteorder)
        if not flags & _TOP_DIRECTORY:
            fcntl.ioctl(fd, _SET_FLAGS, (flags | _TOP_DIRECTORY).to_bytes(4, sys.byteorder))
    os.close(fd)


def load_all(root: Path) -> Iterator[tuple[Directory, Record]]:
    """Read every container's record, and remove what was half made or half removed. One that is damaged is left."""
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            shutil.rmtree(path)
            continue
        directory = Directory(path)
        try:
            record = directory.record()
        except (OSError, msgspec.DecodeError) as problem:
            _LOG.error(
                "container %s can't be read and is left out; remove its directory %s: %s", path.name, path, problem
            )
            continue
        yield directory, record
