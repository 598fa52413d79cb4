"""A daemon to be killed: `python -m tests.host.engine_daemon ROOT PARENT COMMAND` runs one container and says so."""

import asyncio
import sys
from pathlib import Path

from swarmd.runtime.model import ContainerConfig, Health
from tests.host.engine_host import add_image, engine_in


async def main() -> None:
    root, parent, command = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    async with engine_in(root, parent) as engine:
        await add_image(engine.images)
        probe = Health(test=("CMD", "true"), interval=0.2)
        config = ContainerConfig(
            image="busybox", command=("sh", "-c", command), network_mode="none", stop_timeout=0.2, health=probe
        )
        id = await engine.create(config, "survivor")
        await engine.start(id)
        print(engine.inspect(id).pid, flush=True)
        await engine.wait(id)


asyncio.run(main())
