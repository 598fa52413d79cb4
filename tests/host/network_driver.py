"""Runs a NetworkManager in whatever namespace it is started in, told what to do by JSON lines; see test_network.py."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.model import ContainerConfig
from swarmd.runtime.network.manager import NetworkManager
from swarmd.runtime.network.values import OverlayState


async def obey(manager: NetworkManager, verb: str, args: list[Any]) -> Any:
    if verb == "attach":
        config = msgspec.convert({"image": "none", **args[2]}, type=ContainerConfig)
        sandbox = await manager.attach(args[0], args[1], config)
        return {"netns": sandbox.netns_path, "ports": [p.host_port for p in sandbox.ports], "dns": sandbox.nameservers}
    if verb == "apply":
        return await manager.apply(msgspec.convert(args[0], type=OverlayState))
    if verb == "create":
        return msgspec.to_builtins(await manager.create(args[0]))
    if verb == "sandboxes":
        return list(manager.sandboxes())
    return await {"release": manager.release, "remove": manager.remove}[verb](args[0])


async def main() -> None:
    async with NetworkManager.open(Path(sys.argv[1]), Path(sys.argv[2])) as manager:
        print(json.dumps("ready"), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            verb, *args = json.loads(line)
            try:
                answer = await obey(manager, verb, args)
            except RuntimeFault as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            print(json.dumps(answer), flush=True)


asyncio.run(main())
