"""Lines that wait for a slow log, and lines that no longer could."""

import threading
from pathlib import Path

from swarmd.runtime.stages.buffered import Buffered
from swarmd.runtime.stages.jsonlog import Log
from tests.runtime.test_logs import read


class Slow:
    """A log that takes nothing until it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.taken: list[tuple[str, bytes]] = []
        self.begun = threading.Event()
        self.closed = False

    def append(self, stream: str, lines: bytes, at: int) -> None:
        self.begun.set()
        assert self.may.wait(20)
        self.taken.append((stream, lines))

    def close(self) -> None:
        self.closed = True


def test_the_program_goes_on_and_hears_what_it_cost() -> None:
    slow = Slow()
    log = Buffered(slow, room=100)
    log.write("stdout", b"first\n")
    assert slow.begun.wait(5)
    for number in range(100):
        log.write("stdout", b"line %05d\n" % number)
    slow.may.set()
    log.close()
    lines = b"".join(lines for stream, lines in slow.taken if stream == "stdout").splitlines()
    kept = len(lines) - 1
    assert lines == [b"first", *(b"line %05d" % number for number in range(kept))]
    assert 0 < kept * 11 <= 100
    (said,) = [lines for stream, lines in slow.taken if stream == "stderr"]
    assert said.startswith(b"swarmd: %d lines lost: " % (100 - kept))
    assert slow.closed


async def test_all_is_there_at_the_end_and_after_a_flush(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    log = Buffered(Log(str(path), 0, 1, attributes={"team": "a"}), room=1 << 20)
    log.write("stdout", b"one\nhal")
    log.flush("stdout")
    assert [entry.data for entry in await read(path)] == [b"one\n", b"hal"]
    log.write("stderr", b"two\n")
    log.close()
    entries = await read(path)
    assert [entry.data for entry in entries][2:] == [b"two\n"]
    assert all(entry.attributes == {"team": "a"} for entry in entries)
