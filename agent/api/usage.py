"""GET /system/df: what images and containers take on the disk."""

import asyncio
import time

from aiohttp import web

from swarmd.agent.api import builds, image_json
from swarmd.agent.api.container_image import image_of
from swarmd.agent.api.container_json import summary
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Invalid

_TYPES = ("container", "image", "volume", "build-cache")


async def usage(request: web.Request) -> web.Response:
    wanted = request.query.getall("type", []) or list(_TYPES)
    for kind in wanted:
        if kind not in _TYPES:
            raise Invalid(f"type {kind} is not known: it is one of {', '.join(_TYPES)}")
    engine, now = services(request).engine, time.time_ns()
    shown: dict[str, object] = {
        "LayersSize": 0,
        "Images": None,
        "Containers": None,
        "Volumes": None,
        "BuildCache": None,
    }
    if "image" in wanted:
        store = engine.images
        used = [state.image_id for state in engine.list()]
        shown["LayersSize"] = await asyncio.to_thread(store.disk_usage)
        shared = image_json.shared_sizes(store, found := store.list())
        shown["Images"] = [
            image_json.summary(store, image, image.refs, shared[image.id])
            | {"Containers": sum(image_json.runs(image, id) for id in used)}
            for image in found
        ]
    if "container" in wanted:
        rows = []
        for state in engine.list():
            written, whole = await asyncio.to_thread(engine.sizes, state.id)
            row = summary(state, image_of(engine, state), now)
            rows.append(row | {"SizeRw": written, "SizeRootFs": whole})
        shown["Containers"] = rows
    if "build-cache" in wanted:
        shown["BuildCache"] = await builds.usage(engine)
    if "volume" in wanted:  # there are none yet
        shown["Volumes"] = []
    return answer(shown)
