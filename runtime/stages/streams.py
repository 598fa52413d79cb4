"""Carries a program's output to whoever keeps it and to those attached to it, and their input to the program.

The shim uses it for the container's program, the exec helper for its own.  A client is a connected socket, as a rule
the very connection of the Engine API's client: the daemon hands it over and is not in the way, so bytes cost it
nothing and go on without it.  What is sent is Docker's protocol: raw with a terminal, else in frames (a byte of stream,
three of zero, four of length, the data).

Nothing is read from the program while a client has not taken what was read before: a client that reads slowly slows the
program down, as with Docker, since output dropped would be output lost.  One that is gone holds up nothing.
"""

import contextlib
import json
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from swarmd.runtime.stages import files

_CHUNK = 1 << 18
_NUMBERS = {"stdout": 1, "stderr": 2}
# After the program's end: how long its output may go on, and how long a terminal may keep the last of it to itself.
_LONGEST_DRAIN, _TERMINAL_QUIET = 2.0, 0.05
_GONE = select.POLLHUP | select.POLLERR


def frame_header(stream: str, size: int) -> bytes:
    return struct.pack(">BxxxI", _NUMBERS[stream], size)


def set_size(terminal: int, height: int, width: int) -> None:
    termios.tcsetwinsize(terminal, (height, width))


class Client:
    """Who is attached.

    wants: {"stdin", "stdout", "stderr", "raw"}, each true or false; raw: without frames; held: is sent nothing yet.
    """

    def __init__(self, fd: int, wants: dict[str, Any], held: bool = False) -> None:
        os.set_blocking(fd, False)
        self.fd, self.held = fd, held
        self.stdin: bool = wants["stdin"]
        self.outputs = [stream for stream in _NUMBERS if wants[stream]]
        self.raw: bool = wants.get("raw", False)
        self.pending = bytearray()
        self.leaving = False  # closed as soon as it has taken what is pending

    def send(self, header: bytes, data: bytes) -> bool:
        """Send or keep; False when it is gone."""
        sent = 0
        if not (self.pending or self.held):
            try:
                sent = os.writev(self.fd, (header, data))
            except BlockingIOError:
                pass
            except OSError:
                return False
        if sent < len(header) + len(data):
            self.pending += header[sent:]
            self.pending += memoryview(data)[max(0, sent - len(header)) :]
        return True

    def flush(self) -> bool:
        try:
            while self.pending:
                del self.pending[: os.write(self.fd, self.pending)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def hang_up(self) -> None:
        """End both directions; input that nobody read would make the kernel say "reset" to it instead of "end"."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.fd)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
            while connection.recv(_CHUNK):
                pass


class Pump:
    """outputs: the stream of each descriptor to read; stdin: -1 for none; terminal: outputs has one, also for stdin.

    close_stdin: the end of a client's input is that of the program's, unless that is a terminal.  keep is told of all
    output before any client, ended of the end of a stream.
    """

    def __init__(
        self,
        outputs: dict[int, str],
        stdin: int,
        terminal: bool,
        close_stdin: bool,
        keep: Callable[[str, bytes], None] | None = None,
        ended: Callable[[str], None] | None = None,
    ) -> None:
        self._outputs, self._stdin, self._terminal = outputs, stdin, terminal
        self._close_stdin, self._keep, self._ended = close_stdin and not terminal, keep, ended
        self._input = bytearray()
        self._closing = False  # stdin, once the input is written
        self._clients: dict[int, Client] = {}
        self._others: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._asked: dict[int, int] = {}
        for fd in (*outputs, *((stdin,) if stdin >= 0 else ())):
            os.set_blocking(fd, False)

    def add(self, client: Client) -> None:
        client.stdin = client.stdin and self._stdin >= 0
        self._clients[client.fd] = client

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        self._others[fd] = ready

    def unwatch(self, fd: int) -> None:
        self._others.pop(fd, None)

    def resize(self, height: int, width: int) -> None:
        if self._terminal:
            for terminal in self._outputs:
                set_size(terminal, height, width)

    def run(self, ended: int, timeout: float | None = None) -> bool:
        """Carry until the descriptor `ended` is readable, then what is left; False when time was up before."""
        deadline = None if timeout is None else time.monotonic() + timeout
        done: list[int] = []
        self.watch(ended, lambda: done.append(ended))
        while not done:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            self._turn(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self.unwatch(ended)
        self._drain()
        for stream in self._outputs.values():
            if self._ended:
                self._ended(stream)
        return True

    def say(self, stream: str, data: bytes) -> None:
        """Let the clients read something that is not the program's."""
        self._send(stream, data)

    def flush(self) -> None:
        """Wait until every client has taken what is left for it or has gone, and close them."""
        self._close_input()
        for fd in self._outputs:
            self._forget(fd)
        self._outputs, self._others = {}, {}
        for client in list(self._clients.values()):
            client.stdin, client.leaving, client.held = False, True, False
            self._settle(client)
        while self._clients:
            self._turn(None)

    @property
    def busy(self) -> bool:
        return any(client.pending for client in self._clients.values())

    def _turn(self, timeout: float | None) -> None:
        self._arrange()
        for fd, event in self._poll.poll(None if timeout is None else timeout * 1000):
            if fd in self._others:
                self._others[fd]()
            elif fd in self._clients:
                self._serve(self._clients[fd], event)
            else:
                if fd == self._stdin and self._input and event & (select.POLLOUT | _GONE):
                    self._write_input()
                if fd in self._outputs and event & (select.POLLIN | _GONE) and not self.busy:
                    self._read_output(fd)

    def _arrange(self) -> None:
        """Ask for exactly what can be dealt with now."""
        wanted = dict.fromkeys(self._others, select.POLLIN)
        room = len(self._input) < _CHUNK
        for client in self._clients.values():
            wanted[client.fd] = (select.POLLIN if client.stdin and room else 0) | (
                select.POLLOUT if client.pending and not client.held else 0
            )
        if not self.busy:
            wanted |= dict.fromkeys(self._outputs, select.POLLIN)
        if self._input:
            wanted[self._stdin] = wanted.get(self._stdin, 0) | select.POLLOUT
        for fd in self._asked.keys() - wanted.keys():
            self._poll.unregister(fd)
            del self._asked[fd]
        for fd, mask in wanted.items():
            if self._asked.get(fd) != mask:
                self._poll.register(fd, mask)
                self._asked[fd] = mask

    def _forget(self, fd: int) -> None:
        """Close a descriptor that may be waited for."""
        if self._asked.pop(fd, None) is not None:
            self._poll.unregister(fd)
        os.close(fd)

    # Output

    def _read_output(self, fd: int) -> bool:
        """Pass on one piece; False when there is none now."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: the last process has closed the terminal
        if data:
            self._send(self._outputs[fd], data)
            return True
        if self._ended:
            self._ended(self._outputs[fd])
        del self._outputs[fd]
        if fd == self._stdin:
            self._stdin, self._input = -1, bytearray()
        self._forget(fd)
        return False

    def _send(self, stream: str, data: bytes) -> None:
        if self._keep:
            self._keep(stream, data)
        header = b"" if self._terminal else frame_header(stream, len(data))
        for client in list(self._clients.values()):
            wanted = stream in client.outputs and not client.leaving
            if wanted and not client.send(b"" if client.raw else header, data):
                self._drop(client)

    def _drain(self) -> None:
        """Read what the program left in its pipes; another that it handed them to is not waited for."""
        deadline = time.monotonic() + _LONGEST_DRAIN
        quiet = _TERMINAL_QUIET * 1000 if self._terminal else 0
        while self._outputs and time.monotonic() < deadline:
            poll = select.poll()
            for fd in self._outputs:
                poll.register(fd, select.POLLIN)
            ready = poll.poll(quiet)
            if not ready:
                return
            for fd, _ in ready:
                self._read_output(fd)

    # Clients

    def _serve(self, client: Client, event: int) -> None:
        if event & select.POLLOUT and not client.flush():
            self._drop(client)
        elif event & _GONE:
            # What it sent before it left is still there to be read.
            while client.stdin and self._read_input(client):
                pass
            self._drop(client)
        else:
            if event & select.POLLIN:
                self._read_input(client)
            self._settle(client)

    def _settle(self, client: Client) -> None:
        if client.leaving and not client.pending and client.fd in self._clients:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if client.fd not in self._clients:
            return
        del self._clients[client.fd]
        if client.stdin:
            self._end_input(client)
        client.hang_up()
        self._forget(client.fd)

    # Input

    def _read_input(self, client: Client) -> bool:
        try:
            data = os.read(client.fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._input += data
            self._write_input()
            return True
        self._end_input(client)
        return False

    def _end_input(self, client: Client) -> None:
        """A client's input is at its end: the program's too, or else the client has nothing more to do here."""
        client.stdin = False
        if self._close_stdin:
            self._closing = True
            self._write_input()
        else:
            client.leaving = True

    def _write_input(self) -> None:
        try:
            while self._input and self._stdin >= 0:
                del self._input[: os.write(self._stdin, self._input)]
        except BlockingIOError:
            return
        except OSError:
            self._input.clear()  # the program has closed it
            self._closing = True
        if self._closing or self._stdin < 0:
            self._close_input()

    def _close_input(self) -> None:
        self._input.clear()
        if self._stdin >= 0 and not self._terminal:
            self._forget(self._stdin)
            self._stdin = -1
            for client in self._clients.values():
                client.stdin = False


class Door:
    """attach.sock: how the daemon hands over clients and asks for a terminal's size, one message to a connection.

    The answer is {"at"}, the time in ns until which the log holds what this client will not be sent.  A client that is
    held is sent nothing until the daemon has closed the connection, by when it has written the log to it itself.
    """

    def __init__(self, directory: str, pump: Pump, flush_log: Callable[[str], None]) -> None:
        self._pump, self._flush_log = pump, flush_log
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{place}/attach.sock"  # the directory's own may be longer than a socket's name
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._socket.bind(path)
        os.chmod(path, 0o600)
        os.close(place)
        self._socket.listen(64)
        pump.watch(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            channel, _ = self._socket.accept()
        except OSError:
            return
        fd = channel.fileno()
        held: list[Client] = []

        def ready() -> None:
            data, fds, _, _ = socket.recv_fds(channel, 4096, 1)
            if data:
                held.extend(self._serve(json.loads(data), fds))
                with contextlib.suppress(OSError):
                    channel.send(files.dump_json({"at": time.time_ns()}))
                return
            for client in held:
                client.held = False
            self._pump.unwatch(fd)
            channel.close()

        self._pump.watch(fd, ready)

    def _serve(self, request: dict[str, Any], fds: list[int]) -> list[Client]:
        if size := request.get("resize"):
            self._pump.resize(*size)
            return []
        if request["held"]:
            for stream in _NUMBERS:
                self._flush_log(stream)  # so that what is sent later begins where the log ends
        clients = [Client(fd, request["attach"], request["held"]) for fd in fds]
        for client in clients:
            self._pump.add(client)
        return clients
