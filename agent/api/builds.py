"""POST /build as Docker's clients use it; swarmctl asks the same with more.

What is asked for is read by build_request.py.  With progress=events the answer tells of each step, instead of its text.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, cast

from aiohttp import web

from swarmd.agent.api import build_contexts, build_request, query
from swarmd.agent.api.image_events import told
from swarmd.agent.api.image_progress import Say, streamed
from swarmd.agent.api.interface import Engine, services
from swarmd.agent.api.streams import answer, respond, stamp
from swarmd.runtime.build.pruning import MOUNT, Kept, Limits
from swarmd.runtime.build.request import Progress, Request
from swarmd.runtime.images.arrivals import Source
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Descriptor, Platform
from swarmd.runtime.images.pulling import Registry, pull
from swarmd.runtime.images.references import Reference
from swarmd.runtime.registry import credentials_by_registry


async def build(request: web.Request) -> web.StreamResponse:
    engine = services(request).engine
    more, came = await build_request.more(request)
    asked = build_request.asked(request, more)
    file = request.query.get("dockerfile", "") or "Dockerfile"
    quiet, events = query.flag(request, "q"), request.query.get("progress", "") == "events"
    credentials = credentials_by_registry(request.headers.get("X-Registry-Config"))

    async def work(say: Say) -> None:
        def warn(sentence: str) -> None:
            if events:
                say({"warning": sentence})
            elif not quiet:
                say({"stream": f"[Warning] {sentence}\n"})

        async def bring(ref: str, wanted: Platform, newest: bool) -> Image:
            name = Reference.parse(ref)
            found = credentials.get(name.domain)
            return (await pull(engine.images, engine.registries, name, wanted=wanted, credentials=found)).image

        async def look(ref: str) -> tuple[Source, Descriptor]:
            name = Reference.parse(ref)
            repository = engine.registries.repository(name, credentials.get(name.domain))
            return Registry(repository), await repository.resolve(name.digest or name.tag)

        def heard(progress: Progress) -> None:
            if progress.state == "warning":
                warn(progress.data.decode())
            elif events:
                say(_event(progress))
            elif not quiet:
                for text in _texts(progress):
                    say({"stream": text})

        async with AsyncExitStack() as held:
            context, text = await build_contexts.taken(engine, request, more, came, file, held)
            if more.check:
                for sentence in engine.builder.check(text, file, context):
                    warn(sentence)
                return
            wanted = {**asked, "dockerfile": text, "file": file}
            image, unused = await engine.builder.build(Request(**wanted), context, bring, look, heard)
        if unused:
            warn(f"One or more build-args {unused} were not consumed")
        told(engine, "create", image, "")
        say({"aux": {"ID": image.id}})
        names = [Reference.parse(ref).familiar for ref in asked["refs"]]
        if events:
            for name in names:
                say({"named": name})
        else:
            say({"stream": f"{image.id}\n" if quiet else f"Successfully built {image.id[7:19]}\n"})
            for name in [] if quiet else names:
                say({"stream": f"Successfully tagged {name}\n"})

    return await streamed(request, work)


# ------------------------------------------------------------ what is told


def _event(progress: Progress) -> dict[str, Any]:
    step = progress.step
    event = {
        "number": step.number,
        "count": step.count,
        "stage": step.stage,
        "text": step.text,
        "place": step.place,
        "places": step.places,
        "state": progress.state,
        "seconds": round(progress.seconds, 3),
    }
    if progress.data:
        event |= {"data": progress.data.decode(errors="replace"), "stream": progress.stream}
    return {"step": event}


def _texts(progress: Progress) -> list[str]:
    """As the classic builder wrote it; with stages side by side, lines tell whose they are."""
    step = progress.step
    stage = f"[{step.stage}] " if step.stage else ""
    if progress.state == "started":
        return [f"{stage}Step {step.number}/{step.count} : {step.text}\n"]
    if progress.state == "cached":
        return [f"{stage} ---> Using cache\n"]
    if progress.state == "output":
        return [stage + progress.data.decode(errors="replace")]
    return []


# ------------------------------------------------------------ files of an image


async def rootfs(request: web.Request) -> web.StreamResponse:
    """GET /swarmd/images/{name}/rootfs: a tar of all files that a container of it begins with."""
    engine = services(request).engine
    pieces = cast("Any", engine.builder.files(engine.images.get(request.match_info["name"])))
    async with aclosing(pieces):
        return await respond(request, "application/x-tar", pieces)


# ------------------------------------------------------------ the cache


async def usage(engine: Engine) -> list[dict[str, Any]]:
    """For /system/df."""
    return [
        {
            "ID": one.id,
            "Type": one.kind,
            "Description": one.description,
            "InUse": one.in_use,
            "Shared": one.shared,
            "Size": one.size,
            "CreatedAt": stamp(one.created),
            "LastUsedAt": stamp(one.used),
            "UsageCount": one.uses,
        }
        for one in await engine.builder.kept()
    ]


_TESTS: dict[str, Callable[[Kept, str], bool]] = {
    "id": lambda one, value: one.id.startswith(value),
    "type": lambda one, value: value == one.kind,
    "description": lambda one, value: value in one.description,
    "shared": lambda one, value: one.shared == (value not in ("false", "0")),
    "private": lambda one, value: one.shared == (value in ("false", "0")),
    "inuse": lambda one, value: one.in_use == (value not in ("false", "0")),
    "parent": lambda one, value: False,  # a step's key tells of those before it, but does not name them
}


async def prune(request: web.Request) -> web.Response:
    wanted, everything = query.filters(request), query.flag(request, "all")
    query.only(wanted, frozenset({"until", *_TESTS}))
    engine = services(request).engine
    until = min((query.instant(text) for text in wanted.get("until", ())), default=None)

    def may_go(one: Kept) -> bool:
        if not everything and (one.shared or (one.kind == MOUNT and MOUNT not in wanted.get("type", ()))):
            return False
        kept = until is not None and one.used >= until
        tests = [(_TESTS[key], values) for key, values in wanted.items() if key != "until"]
        return not kept and all(any(test(one, value) for value in values) for test, values in tests)

    reserved = query.number(request, "reserved-space") or query.number(request, "keep-storage")
    most, free = query.number(request, "max-used-space"), query.number(request, "min-free-space")
    taken, freed = await engine.builder.prune(may_go, Limits(reserved=reserved, most=most, free=free))
    engine.publish("builder", "prune", "", {"reclaimed": str(freed)})
    return answer({"CachesDeleted": taken or None, "SpaceReclaimed": freed})
