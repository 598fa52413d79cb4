"""A container's files as archives; the work is done by a process of its own, `stages/archive.py`.

Invariant: this daemon never opens a path of a container's.
"""

import asyncio
import contextlib
import io
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from swarmd.runtime.errors import Conflict, Exhausted, Invalid, NotFound, ReadOnly, RuntimeFault, StartError
from swarmd.runtime.finishing import finished
from swarmd.runtime.model import BindMount, ContainerState
from swarmd.runtime.spawner_client import Asked, Spawner, readable

_CHUNK = 1 << 18
_ERRORS: dict[str, type[RuntimeFault]] = {
    "missing": NotFound,
    "invalid": Invalid,
    "read-only": ReadOnly,
    "full": Exhausted,
    "ended": Conflict,
}


class Found(msgspec.Struct, frozen=True, rename="camel"):
    """What is at a path: mode as in st_mode, mtime in ns since the epoch."""

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str


@dataclass(frozen=True, slots=True)
class Place:
    """Whose files: pidfd is -1 for a container that does not run; layers lowest first."""

    state: ContainerState
    directory: Path
    layers: Sequence[Path]
    pidfd: int


def _request(place: Place, action: str, **more: Any) -> dict[str, Any]:
    binds = [
        {"destination": mount.target, "type": "bind", "source": mount.source, "options": _options(mount)}
        for mount in place.state.config.mounts
        if isinstance(mount, BindMount) and Path(mount.source).exists()
    ]
    linux: dict[str, Any] = {"namespaces": []}
    if place.pidfd >= 0:
        linux = json.loads((place.directory / "config.json").read_bytes())["linux"]
    return {
        "op": "archive",
        "action": action,
        "directory": str(place.directory),
        "lower": [str(layer) for layer in reversed(place.layers)],
        "name": place.state.name,
        "binds": binds,
        "read_only": place.state.config.security.read_only_root,
        "linux": {"namespaces": linux["namespaces"]},
        **more,
    }


def _options(mount: BindMount) -> list[str]:
    return ["rbind" if mount.recursive else "bind", "nodev", "ro" if mount.read_only else "rw"]


def _descriptors(place: Place, data: int) -> list[int]:
    return [*([place.pidfd] if place.pidfd >= 0 else []), data]


async def asked(spawner: Spawner, request: dict[str, Any], fds: list[int]) -> None:
    with spawner.asking(request, fds) as sent:
        await _answered(sent)


async def _answered(sent: Asked) -> None:
    try:
        await sent.answer()
    except StartError as problem:
        kind = str(problem.answer.get("kind", ""))
        raise _ERRORS.get(kind, RuntimeFault)(str(problem)) from None


async def stat(spawner: Spawner, place: Place, path: str) -> Found:
    async with aclosing(get(spawner, place, path, "stat")) as pieces:
        found = await anext(pieces)
    assert isinstance(found, Found)
    return found


async def get(spawner: Spawner, place: Place, path: str, action: str = "get") -> AsyncGenerator[Found | bytes, None]:
    """What is there, then the archive of it. Raises NotFound; an error in the middle ends it with RuntimeFault."""
    async with aclosing(_reading(spawner, _request(place, action, path=path), place)) as pieces:
        async for piece in pieces:
            yield piece


async def export(spawner: Spawner, place: Place) -> AsyncIterator[bytes]:
    async with aclosing(_reading(spawner, _request(place, "export"), place, stat_first=False)) as pieces:
        async for piece in pieces:
            assert isinstance(piece, bytes)
            yield piece


async def export_layers(spawner: Spawner, directory: Path, layers: Sequence[Path]) -> AsyncIterator[bytes]:
    """The archive of all files of layers, lowest first. directory: of the caller's, with upper, work and rootfs."""
    request = {
        "op": "archive",
        "action": "export",
        "directory": str(directory),
        "lower": [str(layer) for layer in reversed(layers)],
    }
    async with aclosing(_reading(spawner, request, None, stat_first=False)) as pieces:
        async for piece in pieces:
            assert isinstance(piece, bytes)
            yield piece


async def _reading(
    spawner: Spawner, request: dict[str, Any], place: Place | None, stat_first: bool = True
) -> AsyncGenerator[Found | bytes, None]:
    with contextlib.ExitStack() as held:
        reader, writer = _pipe(held)
        os.set_blocking(reader.fileno(), False)
        # At once: until something is awaited the container's descriptor is what it was.
        given = _descriptors(place, writer.fileno()) if place else [writer.fileno()]
        sent = held.enter_context(spawner.asking(request, given))
        writer.close()  # it is the other process's alone from here
        head = b""
        while True:
            await readable(reader.fileno())
            chunk = os.read(reader.fileno(), _CHUNK)
            if not chunk:
                break
            if stat_first:
                head += chunk
                line, end, chunk = head.partition(b"\n")
                if not end:
                    continue
                stat_first = False
                yield msgspec.convert(json.loads(line)["stat"], Found)
            if chunk:
                yield chunk
        await _answered(sent)


def _pipe(held: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    reader, writer = os.pipe()
    return held.enter_context(io.FileIO(reader, "r")), held.enter_context(io.FileIO(writer, "w"))


async def put(
    spawner: Spawner, place: Place, path: str, content: AsyncIterator[bytes], *, own: bool, keep_kinds: bool, user: str
) -> None:
    """Unpack an archive into a directory; nothing of that goes on after. Raises NotFound, Invalid, ReadOnly, Exhausted.

    own: all of it is to belong to the container's user, if it has one; keep_kinds: a directory is not replaced by what
    is none, nor the other way.
    """
    with contextlib.ExitStack() as held:
        reader, writer = _pipe(held)
        os.set_blocking(writer.fileno(), False)
        request = _request(place, "put", path=path, keep_kinds=keep_kinds, user=user if own else "")
        sent = held.enter_context(spawner.asking(request, _descriptors(place, reader.fileno())))
        reader.close()
        try:
            with writer, contextlib.suppress(BrokenPipeError):  # it says why in its answer
                async for chunk in content:
                    await _write(writer.fileno(), chunk)
        except BaseException:
            with contextlib.suppress(RuntimeFault):  # an archive that ends too early, as it must be told
                await finished(_answered(sent))
            raise
        await finished(_answered(sent))


async def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _writable(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)
