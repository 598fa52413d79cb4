"""`commit`: an image of what a container has changed, with the configuration that it runs by.

The container's writable layer is packed as it is (images/unpacking/packing.py), without what we made to mount on.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec

from swarmd.runtime import effective
from swarmd.runtime.changes import without_ours
from swarmd.runtime.container import Container
from swarmd.runtime.errors import Conflict, NotFound, RuntimeFault
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.making import commit as make
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.model import ContainerState
from swarmd.runtime.ports import Image as Configured


async def commit(
    images: ImageStore,
    container: Container,
    refs: Sequence[str],
    config: ImageConfig,
    *,
    author: str = "",
    comment: str = "",
    pause: bool = True,
) -> Image:
    """pause: nothing of it runs while it is read, so that files belong together."""
    async with container.place_to_write() as place, _still(container, pause):
        upper = place.directory / "upper"
        base = images.get(container.state.image_id)
        paths = await asyncio.to_thread(without_ours, upper, place.layers)
        command = " ".join(effective.arguments(container.state.config, base))
        try:
            return await make(
                images, base, upper, refs, config, paths=paths, author=author, comment=comment, command=command
            )
        except (OSError, RuntimeFault):
            if upper.exists():
                raise
            raise NotFound(f"container {container.state.name} was removed before all of it was read") from None


@contextlib.asynccontextmanager
async def _still(container: Container, pause: bool) -> AsyncIterator[None]:
    paused = pause and container.running and not container.state.paused
    if paused:
        try:
            await container.pause()
        except Conflict:  # it has ended meanwhile
            paused = False
    try:
        yield
    finally:
        if paused:
            with contextlib.suppress(Conflict, NotFound):  # somebody else did, or it was killed
                await container.unpause()


def config_of(state: ContainerState, image: Configured) -> ImageConfig:
    """What the container runs by, as an image would say it; what is left to be done by builds is not its own."""
    own, base = state.config, image.config
    env = dict(line.partition("=")[::2] for line in base.env)
    for line in own.env:
        name, equals, value = line.partition("=")
        env.pop(name, None)
        if equals:
            env[name] = value
    inherits = own.entrypoint is None
    return msgspec.structs.replace(
        base,
        entrypoint=base.entrypoint if own.entrypoint is None else own.entrypoint,
        cmd=own.command if own.command is not None else base.cmd if inherits else (),
        env=tuple(f"{name}={value}" for name, value in env.items()),
        workdir=own.workdir or base.workdir,
        user=own.user or base.user,
        labels=base.labels | own.labels,
        exposed_ports=tuple(dict.fromkeys((*base.exposed_ports, *own.exposed))),
        health=effective.health(own, image),
        stop_signal=own.stop_signal or base.stop_signal,
        onbuild=(),
    )
