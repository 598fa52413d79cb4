"""What the shim's log writer writes, the daemon's reader reads back: every byte, in order."""

import asyncio
import json
from pathlib import Path

import pytest

from swarmd.runtime import logs
from swarmd.runtime.logs import Selection
from swarmd.runtime.model import LogEntry
from swarmd.runtime.stages import jsonlog
from swarmd.runtime.stages.jsonlog import Log


async def read(path: Path, selection: Selection = Selection()) -> list[LogEntry]:  # noqa: B008 - frozen
    return [entry async for entry in logs.one_by_one(logs.read(path, selection, False, lambda: False))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "container.log"


async def test_lines_are_docker_json(path: Path) -> None:
    log = Log(str(path), 1 << 20, 3)
    log.write("stdout", b'say "hi" \xe2\x82\xac\n')
    log.close()
    line = json.loads(path.read_text())
    assert (line["log"], line["stream"]) == ('say "hi" €\n', "stdout")
    assert line["time"].endswith("Z") and len(line["time"]) == len("2026-01-01T00:00:00.000000000Z")


async def test_lines_wait_for_their_end_and_streams_do_not_mix(path: Path) -> None:
    log = Log(str(path), 1 << 20, 3)
    for stream, data in (("stdout", b"a"), ("stderr", b"x\ny"), ("stdout", b"b\nc")):
        log.write(stream, data)
    assert [e.data for e in await read(path)] == [b"x\n", b"ab\n"]
    log.flush("stdout")
    log.flush("stderr")
    assert [(e.stream, e.data) for e in await read(path)][2:] == [("stdout", b"c"), ("stderr", b"y")]
    log.close()


@pytest.mark.parametrize("data", [bytes(range(256)), b"x" * 100_000, "€".encode() * 30_000 + b"\n", b"\n\n\n"])
async def test_every_byte_comes_back(path: Path, data: bytes) -> None:
    log = Log(str(path), 1 << 20, 3)
    log.write("stdout", data)
    log.flush("stdout")
    log.close()
    assert b"".join(e.data for e in await read(path)) == data


async def test_rotation_keeps_the_newest_files_and_their_order(path: Path) -> None:
    log = Log(str(path), 2000, 3)
    for number in range(200):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    found = [e.data for e in await read(path)]
    assert found == [b"line %d\n" % n for n in range(200 - len(found), 200)]
    assert sorted(p.name for p in path.parent.iterdir()) == ["container.log", "container.log.1", "container.log.2"]


async def test_a_single_file_starts_over(path: Path) -> None:
    log = Log(str(path), 1000, 1)
    for number in range(100):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    assert (await read(path))[-1].data == b"line 99\n"
    assert path.stat().st_size < 1200


async def test_selection(path: Path) -> None:
    log = Log(str(path), 1 << 20, 3)
    for number in range(5):
        log.write("stdout" if number % 2 else "stderr", b"%d\n" % number)
    log.close()
    everything = await read(path)
    assert [e.data for e in await read(path, Selection(tail=2))] == [b"3\n", b"4\n"]
    assert [e.data for e in await read(path, Selection(stderr=False, tail=1))] == [b"3\n"]
    assert await read(path, Selection(since=everything[2].at, until=everything[3].at)) == everything[2:4]
    assert await read(path, Selection(tail=0)) == []


async def test_no_log_yet(path: Path) -> None:
    assert await read(path) == []


async def test_a_full_disk_costs_lines_that_are_counted() -> None:
    log = Log("/dev/full", 1 << 20, 1)
    log.write("stdout", b"lost\n" * 3)
    log.close()


async def test_compressed_files_are_read_like_others(path: Path) -> None:
    log = Log(str(path), 2000, 9)
    for number in range(60):
        log.write("stdout", b"line %d\n" % number)
    log.close()
    before = await read(path)
    for number in (1, 2):
        jsonlog.compress(f"{path}.{number}")
    assert sorted(p.suffix for p in path.parent.glob("*.gz")) == [".gz", ".gz"]
    assert await read(path) == before
    assert [e.data for e in await read(path, Selection(tail=1))] == [b"line 59\n"]


async def test_a_file_compressed_or_rotated_while_it_is_read_is_read_once(path: Path) -> None:
    log = Log(str(path), 2000, 100)
    written = rounds = 0

    def running() -> bool:
        # Asked before each batch: everything moves on between two batches.
        nonlocal written, rounds
        rounds += 1
        if rounds < 30 and rounds % 3 == 1:
            for written in range(written, written + 50):  # noqa: B020 - goes on where it was
                log.write("stdout", b"line %d\n" % written)
            written += 1
        for rotated in path.parent.glob("*.[0-9]*"):
            if rotated.suffix != ".gz" and rounds % 2:
                jsonlog.compress(str(rotated))
        return rounds < 30

    found = [entry.data async for entry in logs.one_by_one(logs.read(path, Selection(), True, running))]
    log.close()
    assert found == [b"line %d\n" % number for number in range(written)]


@pytest.mark.parametrize("tail", [0, 1, 7, 4000, 9999, 10_001])
@pytest.mark.parametrize("compressed", [False, True])
async def test_the_end_is_found_from_behind(path: Path, tail: int, compressed: bool) -> None:
    log = Log(str(path), 200_000, 100)
    for number in range(10_000):
        log.write("stderr" if number % 10 == 3 else "stdout", b"line %d\n" % number)
    log.write("stdout", b"not whole yet")
    log.close()
    if compressed:
        for number in range(2, len(list(path.parent.iterdir()))):
            jsonlog.compress(f"{path}.{number}")
    numbers = list(range(10_000))
    assert [e.data for e in await read(path, Selection(tail=tail))] == [
        b"line %d\n" % number for number in numbers[max(0, 10_000 - tail) :]
    ]
    errors = [number for number in numbers if number % 10 == 3]
    assert [e.data for e in await read(path, Selection(tail=tail, stdout=False))] == [
        b"line %d\n" % number for number in errors[max(0, 1000 - tail) :]
    ]


async def test_the_end_of_a_huge_log_is_read_without_the_rest(path: Path) -> None:
    log = Log(str(path), 0, 1)
    log.write("stdout", b"last\n")
    log.close()
    line = path.read_bytes()
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: reading it would take an hour
        file.seek(0, 2)
        file.write(b"\n" + line)
    assert [e.data for e in await read(path, Selection(tail=1))] == [b"last\n"]


async def test_what_a_crash_cut_off_is_left_out_and_named_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(str(path), 0, 1)
    log.write("stdout", b"one\n")
    log.close()
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"log":"to')
    log = Log(str(path), 0, 1)
    log.write("stdout", b"three\n")
    log.close()
    for _ in range(2):
        assert [e.data for e in await read(path)] == [b"one\n", b"three\n"]
    assert [record.getMessage() for record in caplog.records] == [
        f"log file {path} has a damaged line at byte {whole}, which is left out"
    ]


async def test_a_follower_is_woken_by_each_write(path: Path) -> None:
    log = Log(str(path), 1000, 2)
    alive = True
    found = logs.one_by_one(logs.read(path, Selection(), True, lambda: alive))
    for number in range(100):
        line = asyncio.ensure_future(anext(found))
        await asyncio.sleep(0)
        log.write("stdout", b"line %d\n" % number)
        assert (await asyncio.wait_for(line, 5)).data == b"line %d\n" % number
    log.close()
    alive = False
    path.with_name("state.json").write_text("ended")
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(found), 5)


async def test_followers_without_a_watch_find_new_lines_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(logs, "Changes", refuse)
    log = Log(str(path), 0, 1)
    found = logs.one_by_one(logs.read(path, Selection(), True, lambda: True))
    line = asyncio.ensure_future(anext(found))
    await asyncio.sleep(0)
    log.write("stdout", b"late\n")
    assert (await asyncio.wait_for(line, 5)).data == b"late\n"
    await found.aclose()
    log.close()
