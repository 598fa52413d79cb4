"""Answers the containers' names on each bridge's own address, port 53, and forwards the rest to the host's resolvers.

Holds no names: every question is put to the zone it was opened with, so an answer is as fresh as the network's state.
"""

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from swarmd.runtime.network import dnswire

log = logging.getLogger(__name__)
FORWARD_TIMEOUT = 3.0  # seconds per resolver


class Zone(Protocol):
    def addresses(self, client: str, name: str) -> Sequence[str] | None:
        """Return the addresses of a name that this client may know; None if the name is not ours."""

    def name_of(self, client: str, address: str) -> str:
        """Return the name of an address that this client may know, or ""."""


def host_resolvers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        lines = [line.split() for line in path.read_text().splitlines()]
        return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver" and "." in words[1])
    return ()


class DnsServer:
    def __init__(self, zone: Zone, tasks: asyncio.TaskGroup) -> None:
        self._zone = zone
        self._tasks = tasks
        self._asking: set[asyncio.Task[None]] = set()
        self._open: dict[str, contextlib.AsyncExitStack] = {}

    async def listen(self, address: str) -> None:
        if address in self._open:
            return
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            try:
                transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(address, 53))
                stack.callback(transport.close)
                server = await asyncio.start_server(self._stream, address, 53)
                stack.callback(server.close)
            except OSError as error:
                log.warning("containers get no names from %s:53: %s", address, error.strerror)
                return
            self._open[address] = stack.pop_all()

    async def quiet(self, address: str) -> None:
        if stack := self._open.pop(address, None):
            await stack.aclose()

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        for address in list(self._open):
            await self.quiet(address)

    def receive(self, message: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        reply = self._own_answer(message, client[0])
        if reply is not None:
            transport.sendto(dnswire.truncated(reply), client)
            return
        task = self._tasks.create_task(self._forward_datagram(message, client, transport))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _forward_datagram(
        self, message: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport
    ) -> None:
        reply = await self._forward(message, stream=False)
        if not transport.is_closing():
            transport.sendto(reply, client)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("peername")[0]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(4 * FORWARD_TIMEOUT):
                while True:
                    message = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
                    reply = self._own_answer(message, client)
                    if reply is None:
                        reply = await self._forward(message, stream=True)
                    writer.write(struct.pack("!H", len(reply)) + reply)
                    await writer.drain()
        writer.close()

    def _own_answer(self, message: bytes, client: str) -> bytes | None:
        """Return our reply, b"" never; None when the question is for the host's resolvers."""
        try:
            question = dnswire.parse(message)
        except dnswire.Malformed:
            return message[:2] + struct.pack("!HHHHH", 0x8000 | dnswire.FORMERR, 0, 0, 0, 0)
        if reverse := dnswire.reversed_address(question.name):
            name = self._zone.name_of(client, reverse) if question.type == dnswire.PTR else ""
            return dnswire.answer(question, [dnswire.name(name)]) if name else None
        addresses = self._zone.addresses(client, question.name)
        if addresses is None:
            return None
        wanted = list(addresses) if question.type in (dnswire.A, dnswire.ANY) else []
        shuffled = random.sample(wanted, len(wanted))
        return dnswire.answer(question, [dnswire.address(ip) for ip in shuffled])

    async def _forward(self, message: bytes, *, stream: bool) -> bytes:
        for resolver in host_resolvers():
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(FORWARD_TIMEOUT):
                    return await (ask_by_stream if stream else ask_by_datagram)(resolver, message)
        return dnswire.answer(dnswire.parse(message), code=dnswire.SERVFAIL)


async def ask_by_datagram(resolver: str, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as upstream:
        upstream.connect((resolver, 53))
        await loop.sock_sendall(upstream, message)
        while True:
            reply = await loop.sock_recv(upstream, 65535)
            if reply[:2] == message[:2]:
                return reply


async def ask_by_stream(resolver: str, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(resolver, 53)
    try:
        writer.write(struct.pack("!H", len(message)) + message)
        return await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
    finally:
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's datagram transport is not a subclass of asyncio's.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.receive(data, addr, self._transport)
