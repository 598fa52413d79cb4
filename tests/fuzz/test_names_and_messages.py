"""Messages from the network, names and expressions from users, lines of logs and the kernel's small files."""

import contextlib
import json
import struct
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from swarmd.manager.scheduler import constraints
from swarmd.proto import join_token
from swarmd.proto.errors import Invalid
from swarmd.runtime import logs
from swarmd.runtime.cgroups import files
from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.images.references import familiar, normalised
from swarmd.runtime.log_files import Place
from swarmd.runtime.network import dnswire, netlink
from swarmd.runtime.stages import jsonlog
from tests.fuzz.strategies import fuzz, words

LABEL = st.binary(min_size=1, max_size=63)


@fuzz
@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: struct.pack("!6H", 7, 0, 1, 0, 0, 0) + rest))
@example(struct.pack("!6H", 7, 0, 1, 0, 0, 0) + b"\x3f" + b"a" * 63 + b"\0\0\1\0\1")
def test_any_datagram_is_a_question_or_malformed(message: bytes) -> None:
    try:
        question = dnswire.parse(message)
    except dnswire.Malformed:
        return
    reply = dnswire.answer(question, [bytes(4)] * 200)
    assert len(dnswire.truncated(reply)) <= max(512, 12 + len(question.raw))
    dnswire.reversed_address(question.name)


@fuzz
@given(st.integers(0, 0xFFFF), st.lists(LABEL, max_size=4), st.sampled_from([1, 12, 28, 255]))
def test_a_question_is_repeated_in_its_answer(ident: int, labels: list[bytes], kind: int) -> None:
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    message = struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, 1)
    question = dnswire.parse(message)
    reply = dnswire.answer(question)
    assert reply[:2] == message[:2]
    assert reply[12:] == message[12:]


@fuzz
@given(st.binary(max_size=60))
@example(bytes(8))
@example(b"\1\0\1\0")
def test_netlink_attributes_end(data: bytes) -> None:
    assert all(isinstance(value, bytes) for value in netlink.attributes(data).values())


@fuzz
@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=9), max_size=5))
def test_netlink_attributes_are_read_as_written(held: dict[int, bytes]) -> None:
    assert netlink.attributes(b"".join(netlink.attribute(*one) for one in held.items())) == held


@fuzz
@given(words("demo", "library", "docker.io", "localhost", ":", "/", "@", "sha256:", "a" * 64, ".", "5000", "_", "-"))
@example("")
@example("a" * 5000 + "!")
@example("a-" * 5000)
@example("٣")
def test_names_of_images_have_one_full_form(text: str) -> None:
    try:
        full = normalised(text)
    except RuntimeFault:
        return
    assert normalised(full) == full
    assert normalised(familiar(full)) == full


@fuzz
@given(words("node", ".", "labels", "engine", "==", "!=", "=", " ", "ip", "10.0.0.0/8", "role", "manager", "::1"))
@example("node.ip==" + "1" * 5000)
@example("a" * 5000)
@example("node.id==" + " " * 3000 + "=")
def test_constraints_come_back_as_written(text: str) -> None:
    try:
        (found,) = constraints.parse([text])
    except Invalid:
        return
    assert constraints.parse([str(found)]) == [found]


@fuzz
@given(words("SWMTKN", "-", "1", "a" * 50, "b" * 25, "\n"))
def test_join_tokens(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert str(join_token.parse(text)) == text.strip()


@fuzz
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40)), max_size=5))
@example([("stdout", b"\xff\xfe\n")])
@example([("stdout", b"a" * 40000)])
def test_logs_give_back_what_was_written(tmp_path: Path, written: list[tuple[str, bytes]]) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    log = jsonlog.Log(str(path), 0, 1)
    for stream, data in written:
        log.write(stream, data)
    for stream in ("stdout", "stderr"):
        log.flush(stream)
    log.close()
    entries = logs.decode(path.read_bytes(), Place(str(path), 0))
    for stream in ("stdout", "stderr"):
        said = b"".join(entry.data for entry in entries if entry.stream == stream)
        assert said == b"".join(data for name, data in written if name == stream)


@fuzz
@given(words("0", "1", "max", "\n", " ", "anon", "cache", longest=8))
def test_the_kernels_numbers(tmp_path: Path, text: str) -> None:
    """The kernel writes them, so only what it can write has to be read."""
    (tmp_path / "file").write_text(json.dumps(len(text)) + "\n")
    assert files.number(tmp_path / "file") == len(text)
    (tmp_path / "file").write_text("".join(f"key{number} {number}\n" for number in range(len(text))))
    assert len(files.table(tmp_path / "file")) == len(text)
    assert files.table(tmp_path / "none") == {}
