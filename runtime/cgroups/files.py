"""Reads and writes the small files of cgroups, and empties directories of them."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PAUSE = 0.002


def write(file: Path | str, *values: str | int) -> None:
    """One write call for each, as the kernel wants it."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC)
    value: str | int = ""
    try:
        for value in values:
            os.write(fd, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)} writing {value!r}", str(file)) from None
    finally:
        os.close(fd)


def number(file: Path) -> int:
    """A file with one number; 0 when it is not there or says "max"."""
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return 0
    return 0 if text == "max" else int(text)


def table(file: Path) -> dict[str, int]:
    """A file of "key number" lines; empty when it is not there."""
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {key: int(value) for key, value in (line.split()[:2] for line in lines)}


def rows(file: Path) -> dict[str, list[str]]:
    """A file of lines that begin with a key, such as a device's number; empty when it is not there."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except FileNotFoundError:
        return {}
    return {words[0]: words[1:] for words in lines if words}


def groups(directory: Path) -> Iterator[Path]:
    """A group and those below it, deepest first: a privileged container may make its own."""
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for one in below:
            yield from groups(one)
        yield directory


def pids(directory: Path) -> list[int]:
    found: list[int] = []
    for group in groups(directory):
        with contextlib.suppress(FileNotFoundError):
            found += map(int, (group / "cgroup.procs").read_text().split())
    return found


def signal_all(directory: Path, number: int = signal.SIGKILL) -> None:
    for pid in pids(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_until(done: Callable[[], bool], deadline: float) -> bool:
    """Poll until done or past the deadline (monotonic seconds)."""
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def remove(directory: Path, deadline: float) -> None:
    """Remove a group and those below it, waiting for dying processes to leave."""

    def gone() -> bool:
        try:
            for group in groups(directory):
                _rmdir(group)
        except OSError:  # EBUSY: a process is still in it
            return False
        return not directory.exists()

    if not wait_until(gone, deadline):
        raise TimeoutError(f"cgroup {directory} still has processes {pids(directory)}")


def _rmdir(group: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        group.rmdir()
