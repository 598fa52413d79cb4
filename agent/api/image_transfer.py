"""Brings and sends images: pulled and pushed, imported from a root file system, loaded and saved as archives."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import aiohttp
import msgspec
from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.image_changes import changed
from swarmd.agent.api.image_events import moved, told
from swarmd.agent.api.image_json import tags
from swarmd.agent.api.image_progress import Say, line, streamed
from swarmd.agent.api.images import given_name, platform
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import respond
from swarmd.proto.errors import Invalid, NotFound, Unavailable
from swarmd.runtime.images.arrivals import Progress, silent
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.loading import load as load_archive
from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.pulling import pull
from swarmd.runtime.images.pushing import push as push_image
from swarmd.runtime.images.references import Reference, familiar
from swarmd.runtime.images.saving import save as save_archive
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.registry import Credentials, credentials_from_header
from swarmd.runtime.urls import why

_PIECE = 256 * 1024
_OF_LOADS = {  # what is said of pulls, in the words for archives
    **{"Pulling fs layer": "Waiting", "Downloading": "Loading layer", "Download complete": "Loaded"},
    **{"Pull complete": "Load complete"},
}


async def create(request: web.Request) -> web.StreamResponse:
    """Pull `fromImage`, or import a root file system: from the body, or from an address."""
    image, source = request.query.get("fromImage", ""), request.query.get("fromSrc", "")
    if image and source:
        raise Invalid("query parameters fromImage and fromSrc can't both be given: one pulls, the other imports")
    if not image and not source:
        raise Invalid("query parameter fromImage or fromSrc is required: what to pull, or where to import from")
    return await (_pull(request, image) if image else _import(request, source))


async def _pull(request: web.Request, image: str) -> web.StreamResponse:
    engine, wanted, credentials = services(request).engine, platform(request), _credentials(request)
    name = Reference.parse(image)
    tag = request.query.get("tag", "")
    if ":" in tag:
        name = Reference.parse(f"{name.repository}@{tag}")
    elif tag and not name.digest:
        name = Reference.parse(f"{name.repository}:{tag}")
    is_all = not tag and not name.digest and ":" not in image.rpartition("/")[2]

    async def work(say: Say) -> None:
        tags = await engine.registries.repository(name, credentials).tags() if is_all else [name.tag]
        is_new = False
        for tag in tags:
            one = Reference.parse(f"{name.repository}:{tag}") if is_all else name
            pulled = await pull(
                *(engine.images, engine.registries, one),
                wanted=wanted,
                credentials=credentials,
                report=lambda progress: say(line(progress)),
            )
            moved(engine, "pull", pulled.ref, pulled.image)
            say({"status": f"Digest: {pulled.image.id}"})
            is_new = is_new or pulled.is_new
        shown = familiar(name.repository) if is_all else name.familiar
        said = "Downloaded newer image" if is_new else "Image is up to date"
        say({"status": f"Status: {said} for {shown}"})

    return await streamed(request, work)


def _credentials(request: web.Request) -> Credentials:
    return credentials_from_header(request.headers.get("X-Registry-Auth"))


async def push(request: web.Request) -> web.StreamResponse:
    """One tag, or without any all tags of a repository."""
    engine, wanted, credentials = services(request).engine, platform(request), _credentials(request)
    given, tag = request.match_info["name"], request.query.get("tag", "")
    name = Reference.parse(given)
    if name.digest:
        raise Invalid(f"image {given} can't be pushed by its digest: give it a tag and push that")
    if tag or ":" in given.rpartition("/")[2]:
        refs = [str(Reference.parse(f"{name.repository}:{tag}") if tag else name)]
        engine.images.get(refs[0])
    else:
        refs = sorted(ref for image in engine.images.list() for ref in image.refs if _is_tag_of(ref, name))
        if not refs:
            raise NotFound(f"No such image: {familiar(name.repository)}: give an image this name with tag, then push")

    async def work(say: Say) -> None:
        say({"status": f"The push refers to repository [{name.repository}]"})
        for ref in refs:
            image = engine.images.get(ref)  # which may have lost this name, or be gone, when it is pushed
            pushed = await push_image(
                *(engine.images, engine.registries, Reference.parse(ref)),
                wanted=wanted,
                credentials=credentials,
                report=lambda progress: say(line(progress)),
            )
            if pushed.instead:
                note = f"Not all of its platforms are on this node: only that for {pushed.instead} was pushed"
                say({"status": note})
            moved(engine, "push", ref, image)
            say({"status": f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}"})
            aux = {"Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size}
            say({"progressDetail": {}, "aux": aux})

    return await streamed(request, work)


async def _import(request: web.Request, source: str) -> web.StreamResponse:
    engine, name = services(request).engine, given_name(request)
    config = changed(ImageConfig(), request.query.getall("changes", []))
    wanted, message = platform(request), request.query.get("message", "")
    address = "" if source == "-" else _address(source)

    async def work(say: Say) -> None:
        if address:
            say({"status": f"Downloading from {source}"})
        content = _downloaded(source, address) if address else _content(request)
        refs = (str(name),) if name else ()
        image = await import_rootfs(engine.images, content, refs, config=config, message=message, platform=wanted)
        told(engine, "import", image, name.familiar if name else "")
        say({"status": image.id})

    return await streamed(request, work)


async def _content(request: web.Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.content.iter_chunked(_PIECE):
        yield chunk


def _address(source: str) -> str:
    address = source if "://" in source else f"http://{source}"
    if not address.startswith(("http://", "https://")):
        raise Invalid(f"cannot import from {source}: use - for the body, or an address that begins with https://")
    return address


async def _downloaded(source: str, address: str) -> AsyncGenerator[bytes, None]:
    patience = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    try:
        async with (
            aiohttp.ClientSession(timeout=patience, auto_decompress=False, trust_env=True) as session,
            session.get(address) as response,
        ):
            if response.status != 200:
                raise Unavailable(f"cannot import from {source}: it answers {response.status} {response.reason}")
            async for chunk in response.content.iter_chunked(_PIECE):
                yield chunk
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Unavailable(f"cannot import from {source}: {why(error)}") from None


async def load(request: web.Request) -> web.StreamResponse:
    engine, wanted, quiet = services(request).engine, platform(request), query.flag(request, "quiet")

    async def work(say: Say) -> None:
        report = silent if quiet else lambda progress: say(line(progress) | _status_of_load(progress))
        for image in await load_archive(engine.images, _content(request), wanted, report):
            told(engine, "load", image, (tags(image.refs) or [""])[0])
            named = [f"Loaded image: {name}\n" for name in tags(image.refs)]
            for text in named or [f"Loaded image ID: {image.id}\n"]:
                say({"stream": text})

    return await streamed(request, work)


def _status_of_load(progress: Progress) -> dict[str, str]:
    return {"status": _OF_LOADS.get(progress.status, progress.status)}


async def save(request: web.Request) -> web.StreamResponse:
    """Of one image by its path, of several by `names`."""
    engine, wanted = services(request).engine, platform(request)
    names = [request.match_info["name"]] if "name" in request.match_info else request.query.getall("names", [])
    if not names:
        raise Invalid("query parameter names is required: the images to save")
    chosen = _chosen(engine.images, names)
    async with aclosing(save_archive(engine.images, chosen, wanted)) as pieces:
        first = await anext(pieces)  # what can't be saved at all is answered by a status
        for image, refs in chosen:
            told(engine, "save", image, (tags(refs) or [""])[0])
        return await respond(request, "application/x-tar", _with(first, pieces))


def _chosen(store: ImageStore, names: Sequence[str]) -> list[tuple[Image, Sequence[str]]]:
    """The images with the names to save them under: a repository alone means all its tags, an id none."""
    found: dict[str, tuple[Image, list[str]]] = {}
    for name in names:
        for image, ref in _meant(store, name):
            refs = found.setdefault(image.id, (image, []))[1]
            if ref and ref not in refs:
                refs.append(ref)
    return [*found.values()]


def _meant(store: ImageStore, name: str) -> list[tuple[Image, str]]:
    try:
        meant = Reference.parse(name)
    except Invalid:
        return [(store.get(name), "")]
    if ":" not in name.rpartition("/")[2]:
        all_tags = [(image, ref) for image in store.list() for ref in image.refs if _is_tag_of(ref, meant)]
        if all_tags:
            return all_tags
    image = store.get(name)
    if meant.digest:
        meant = msgspec.structs.replace(meant, tag="")
    return [(image, str(meant) if str(meant) in image.refs else "")]


def _is_tag_of(ref: str, repository: Reference) -> bool:
    return "@" not in ref and Reference.parse(ref).repository == repository.repository


async def _with(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
