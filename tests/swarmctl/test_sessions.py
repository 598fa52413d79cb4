"""run, attach, exec and start as a user at a terminal, or a script with pipes, has them."""

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.swarmctl.daemon import Asked, Daemon, daemon_at, frame
from tests.swarmctl.program import SWARMCTL

_WORDS = [*SWARMCTL, "-H"]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemon_at(tmp_path / "s") as daemon:
        yield daemon


def wait_until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain; last seen: {what()}")
        select.select([], [], [], 0.01)


class Program:
    """What runs in the container: `talk` has the connection; the exit code is told once it has returned."""

    def __init__(self, daemon: Daemon, talk: Callable[[Asked], None], code: int = 0, tty: bool = False) -> None:
        self._talk, self._code = talk, code
        self.started, self._ended = threading.Event(), threading.Event()
        state = {
            "Id": "c1",
            "State": {"Running": True, "Paused": False},
            "Config": {"Tty": tty, "OpenStdin": True},
            "HostConfig": {"AutoRemove": False},
        }
        daemon.answers |= {
            "POST /containers/create": {"Id": "c1", "Warnings": ["careful"]},
            "POST /containers/{}/attach": self._attached,
            "POST /containers/{}/wait": self._wait,
            "POST /containers/{}/start": self._start,
            "POST /containers/{}/resize": 200,
            "POST /containers/{}/kill": 204,
            "GET /containers/{}/json": state,
            "POST /containers/{}/exec": {"Id": "e1"},
            "POST /exec/{}/start": self._executed,
            "POST /exec/{}/resize": 200,
            "GET /exec/{}/json": {"ExitCode": code},
        }

    def _attached(self, request: Asked) -> None:
        request.handler.hijack()
        if request.path.startswith("/containers") and not self._is_attach_only:
            self.started.wait(10)
        self._talk(request)
        self._ended.set()

    _is_attach_only = False

    def _executed(self, request: Asked) -> None:
        request.handler.hijack()
        self._talk(request)

    def _start(self, request: Asked) -> None:
        self.started.set()
        request.handler.reply(204)

    def _wait(self, request: Asked) -> None:
        request.handler.begin()
        self._ended.wait(10)
        request.handler.chunk(b'{"StatusCode": %d}\n' % self._code)
        request.handler.chunk(b"")


def ctl(daemon: Daemon, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*_WORDS, f"unix://{daemon.socket}", *words], input=stdin, capture_output=True, timeout=20, check=False
    )


def rest_of(request: Asked) -> bytes:
    """Everything that the client sends until it closes its side."""
    return request.handler.rfile.read()


# ---------------------------------------------------------------- with pipes


def test_run_tells_streams_apart_and_ends_as_the_program_did(daemon: Daemon) -> None:
    def talk(request: Asked) -> None:
        request.handler.wfile.write(frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"more\n"))

    Program(daemon, talk, code=42)
    answer = ctl(daemon, "run", "demo", "true")
    assert (answer.returncode, answer.stdout, answer.stderr) == (42, b"out\nmore\n", b"WARNING: careful\nerr\n")
    order = [one.path.rpartition("/")[2] for one in daemon.asked]
    assert order == ["create", "attach", "wait", "start"]
    assert daemon.said("POST /containers/c1/attach")[0].query == {"stream": "true", "stdout": "true", "stderr": "true"}
    assert daemon.said("POST /containers/c1/wait")[0].query == {"condition": "next-exit"}


def test_piped_input_ends_before_output_does(daemon: Daemon) -> None:
    def talk(request: Asked) -> None:
        got = rest_of(request)
        request.handler.wfile.write(frame(1, b"%d bytes" % len(got)))

    Program(daemon, talk)
    answer = ctl(daemon, "run", "-i", "--rm", "demo", "wc", stdin=b"x" * 300_000)
    assert (answer.returncode, answer.stdout) == (0, b"300000 bytes")
    assert daemon.said("POST /containers/c1/wait")[0].query == {"condition": "removed"}
    assert daemon.said("POST /containers/create")[0].json["StdinOnce"] is True


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        (b"program: x: executable file not found in $PATH", 127),
        (b"program: /etc: permission denied", 126),
        (b"network y is not there", 125),
    ],
)
def test_a_container_that_cannot_start_ends_as_a_shell_would(daemon: Daemon, sentence: bytes, code: int) -> None:
    Program(daemon, lambda request: None)
    status = 400 if code > 125 else 409
    daemon.answers["POST /containers/{}/start"] = lambda asked: asked.handler.reply(
        status, b'{"message": "%b"}' % sentence
    )
    for words in (("run", "demo", "x"), ("run", "-d", "demo", "x")):
        answer = ctl(daemon, *words)
        assert (answer.returncode, answer.stderr.splitlines()[-1]) == (code, b"swarmctl: " + sentence)


def test_refusals_of_the_daemon_end_with_125(daemon: Daemon) -> None:
    daemon.answers["POST /containers/create"] = 409
    assert ctl(daemon, "run", "demo").returncode == 125
    assert ctl(daemon, "create", "demo").returncode == 125
    assert ctl(daemon, "run").returncode == 125


def test_exec_returns_the_exit_code_of_the_command(daemon: Daemon) -> None:
    def talk(request: Asked) -> None:
        request.handler.wfile.write(frame(1, rest_of(request)))

    Program(daemon, talk, code=9)
    answer = ctl(daemon, "exec", "-i", "-e", "A=b", "-u", "1", "-w", "/w", "one", "cat", "-n", stdin=b"in")
    assert (answer.returncode, answer.stdout) == (9, b"in")
    asked = daemon.said("POST /containers/one/exec")[0].json
    assert asked == {
        "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Cmd": ["cat", "-n"], "Env": ["A=b"],
        "User": "1", "WorkingDir": "/w", "Tty": False, "Privileged": False, "DetachKeys": "",
    }  # fmt: skip


def test_signals_go_to_the_container(daemon: Daemon) -> None:
    killed = threading.Event()
    Program(daemon, lambda request: (killed.wait(10), None)[1], code=130)

    def kill(asked: Asked) -> None:
        asked.handler.reply(204)
        killed.set()

    daemon.answers["POST /containers/{}/kill"] = kill
    process = subprocess.Popen([*_WORDS, f"unix://{daemon.socket}", "run", "demo"], stderr=subprocess.DEVNULL)
    wait_until(lambda: bool(daemon.said("POST /containers/c1/start")), lambda: daemon.asked)
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    assert daemon.said("POST /containers/c1/kill")[0].query == {"signal": "INT"}


def test_one_that_does_not_heed_signals_can_be_left(daemon: Daemon) -> None:
    over = threading.Event()
    Program(daemon, lambda request: (over.wait(10), None)[1])
    daemon.answers["POST /containers/{}/kill"] = 204
    process = subprocess.Popen([*_WORDS, f"unix://{daemon.socket}", "run", "demo"], stderr=subprocess.PIPE)
    wait_until(lambda: bool(daemon.said("POST /containers/c1/start")), lambda: daemon.asked)
    for count in (1, 2):
        process.send_signal(signal.SIGINT)
        wait_until(lambda: len(daemon.said("POST /containers/c1/kill")) == count, lambda: daemon.asked)  # noqa: B023
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=15)
    assert (process.returncode, said.splitlines()[-1]) == (
        *(130, b"swarmctl: left it running, as it does not heed the signal: 'swarmctl kill c1' ends it"),
    )
    over.set()


def test_without_sig_proxy_an_interrupt_ends_only_the_command(daemon: Daemon) -> None:
    over = threading.Event()
    program = Program(daemon, lambda request: (over.wait(10), None)[1])
    process = subprocess.Popen(
        [*_WORDS, f"unix://{daemon.socket}", "run", "--sig-proxy=false", "demo"], stderr=subprocess.DEVNULL
    )
    wait_until(program.started.is_set, lambda: daemon.asked)
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    assert daemon.said("POST /containers/c1/kill") == []
    over.set()


def test_a_reader_that_goes_away_ends_it_without_a_word(daemon: Daemon) -> None:
    def talk(request: Asked) -> None:
        while True:
            request.handler.wfile.write(frame(1, b"y\n" * 10_000))

    Program(daemon, talk)
    command = f"{shlex.join(_WORDS)} unix://{daemon.socket} run demo yes | head -1; echo ${{PIPESTATUS[0]}}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, timeout=20, check=False)
    assert (answer.stdout, answer.stderr) == (b"y\n141\n", b"WARNING: careful\n")


def test_a_terminal_is_asked_for_only_with_one(daemon: Daemon) -> None:
    Program(daemon, lambda request: None)
    answer = ctl(daemon, "run", "-it", "demo")
    assert answer.returncode == 1
    assert b"the standard input is no terminal: leave -t out" in answer.stderr
    assert daemon.asked == []


def test_cidfile(daemon: Daemon, tmp_path: Path) -> None:
    Program(daemon, lambda request: None)
    path = tmp_path / "id"
    assert ctl(daemon, "run", "-d", "--cidfile", str(path), "demo").stdout == b"c1\n"
    assert path.read_text() == "c1"
    again = ctl(daemon, "run", "-d", "--cidfile", str(path), "demo")
    assert (again.returncode, len(daemon.said("POST /containers/create"))) == (125, 1)


def test_a_missing_image_is_pulled_where_the_daemon_can(daemon: Daemon) -> None:
    have: list[str] = []

    def create(asked: Asked) -> None:
        asked.handler.reply(201 if have else 404, {"Id": "c1"} if have else {"message": "no image demo"})

    def pull(asked: Asked) -> None:
        have.append(asked.query["fromImage"])
        asked.handler.reply(200, b'{"status": "Pulling", "id": "demo"}\n{"status": "Done"}\n')

    Program(daemon, lambda request: None)
    daemon.answers |= {"POST /containers/create": create, "POST /images/create": pull}
    never = ctl(daemon, "create", "--pull", "never", "demo")
    assert (never.returncode, never.stderr) == (125, b"swarmctl: no image demo\n")
    answer = ctl(daemon, "create", "demo")
    assert (answer.stdout, answer.stderr, have) == (b"c1\n", b"demo: Pulling\nDone\n", ["demo:latest"])


# ---------------------------------------------------------------- at a terminal


class Terminal:
    """swarmctl in a terminal of 30 rows and 100 columns."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.seen = b""
        self.process = subprocess.Popen(
            [*_WORDS, f"unix://{daemon.socket}", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def see(self, text: bytes) -> None:
        def found() -> bool:
            if select.select([self.master], [], [], 0)[0]:
                self.seen += os.read(self.master, 65536)
            return text in self.seen

        wait_until(found, lambda: self.seen)

    def ended(self) -> int:
        """The exit code; the terminal is as it was."""
        code = self.process.wait(15)
        assert termios.tcgetattr(self._slave) == self.before
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def terminal(daemon: Daemon) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*words: str) -> Terminal:
        made.append(Terminal(daemon, *words))
        return made[-1]

    yield make
    for one in made:
        one.close()


def shell(request: Asked) -> None:
    """Echoes each line in capitals; ends at the word exit."""
    request.handler.wfile.write(b"$ ")
    pending = b""
    while data := request.handler.rfile.read1(100):
        pending += data
        request.handler.wfile.write(data.upper())
        if b"exit\r" in pending:
            return


def sizes(daemon: Daemon, start: str) -> list[tuple[str, str]]:
    return [(one.query["h"], one.query["w"]) for one in daemon.said(start)]


def test_a_terminal_has_keys_sizes_and_an_end(daemon: Daemon, terminal: Callable[..., Terminal]) -> None:
    Program(daemon, shell, code=3, tty=True)
    here = terminal("run", "-it", "--name", "one", "demo", "sh")
    here.see(b"$ ")
    here.type(b"hello\x03")  # control-C is a key like others
    here.see(b"HELLO\x03")
    wait_until(lambda: sizes(daemon, "POST /containers/c1/resize") == [("30", "100")], lambda: daemon.asked)
    here.resize(40, 120)
    here.process.send_signal(signal.SIGWINCH)
    wait_until(lambda: ("40", "120") in sizes(daemon, "POST /containers/c1/resize"), lambda: daemon.asked)
    here.type(b"exit\r")
    assert here.ended() == 3
    assert daemon.said("POST /containers/c1/kill") == []


@pytest.mark.parametrize(("flags", "keys"), [((), b"\x10\x11"), (("--detach-keys", "ctrl-x,x"), b"\x18x")])
@pytest.mark.parametrize(
    "command", [("run", "-it", "demo"), ("exec", "-it", "c1", "sh"), ("attach", "c1"), ("start", "-ai", "c1")]
)
def test_the_keys_detach(
    daemon: Daemon,
    terminal: Callable[..., Terminal],
    command: tuple[str, ...],
    flags: tuple[str, ...],
    keys: bytes,
) -> None:
    program = Program(daemon, shell, code=3, tty=True)
    program._is_attach_only = command[0] == "attach"
    here = terminal(command[0], *flags, *command[1:])
    here.see(b"$ ")
    here.type(b"ab" + keys[:1])
    here.see(b"AB")
    here.type(keys[1:])
    assert here.ended() == 0


def test_half_of_the_keys_goes_through_when_something_else_follows(
    daemon: Daemon, terminal: Callable[..., Terminal]
) -> None:
    Program(daemon, shell, tty=True)
    here = terminal("run", "-it", "demo")
    here.see(b"$ ")
    here.type(b"\x10z")
    here.see(b"\x10Z")
    here.type(b"exit\r")
    assert here.ended() == 0


def test_exec_in_a_terminal_has_its_size_from_the_start(daemon: Daemon, terminal: Callable[..., Terminal]) -> None:
    Program(daemon, shell, code=5, tty=True)
    here = terminal("exec", "-it", "c1", "sh")
    here.see(b"$ ")
    here.type(b"exit\r")
    assert here.ended() == 5
    assert daemon.said("POST /containers/c1/exec")[0].json["ConsoleSize"] == [30, 100]
    start: Any = daemon.said("POST /exec/e1/start")[0].json
    assert start == {"Detach": False, "Tty": True, "ConsoleSize": [30, 100]}


def test_a_daemon_that_goes_away_leaves_the_terminal_sane(daemon: Daemon, terminal: Callable[..., Terminal]) -> None:
    def talk(request: Asked) -> None:
        request.handler.wfile.write(b"$ ")
        request.handler.rfile.read(1)
        request.handler.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: gone without a word

    Program(daemon, talk, code=1, tty=True)
    here = terminal("run", "-it", "demo")
    here.see(b"$ ")
    here.type(b"x")
    assert here.ended() == 1


def test_wrong_keys_are_refused_before_anything_happens(daemon: Daemon) -> None:
    Program(daemon, lambda request: None)
    answer = ctl(daemon, "attach", "--detach-keys", "ctrl-", "c1")
    assert answer.returncode == 125
    assert b"are no keys to detach with" in answer.stderr
    assert daemon.said("POST /containers/c1/attach") == []
