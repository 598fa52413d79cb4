"""What a build copies from: the body of POST /build, a URL, and the contexts that swarmctl gives by name."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import msgspec
from aiohttp import web

from swarmd.agent.api.build_request import More
from swarmd.agent.api.interface import Engine
from swarmd.proto.errors import Invalid
from swarmd.runtime.build.builder import Context
from swarmd.runtime.build.named import Named, plain, split
from swarmd.runtime.build.patterns import BadPattern, ignoring
from swarmd.runtime.build.trees import Tree

_PIECE = 512 * 1024
_IMAGE = "docker-image://"
_SENT = "sent:"  # and how the names of its files begin in the body


async def taken(
    engine: Engine, request: web.Request, more: More, came: bytes, file: str, held: AsyncExitStack
) -> tuple[Context, str]:
    """All of a build's contexts, kept until the stack is left, and the text of the Dockerfile, which is called file."""
    builder, remote = engine.builder, request.query.get("remote", "")
    prefixes = {
        plain(name): where.removeprefix(_SENT) for name, where in more.contexts.items() if where.startswith(_SENT)
    }
    named = Named({}, {})
    context = None
    if prefixes or not remote:
        context = await held.enter_async_context(builder.context(_content(request, came)))
        tree, trees = split(context.tree, prefixes)
        context = msgspec.structs.replace(context, tree=tree)
        named.trees.update(trees)
    if context is None or remote:
        context = await held.enter_async_context(builder.remote_context(remote))
    for name, where in more.contexts.items():
        if where.startswith(_IMAGE):
            named.images[plain(name)] = where.removeprefix(_IMAGE)
        elif not where.startswith(_SENT):
            other = await held.enter_async_context(builder.remote_context(where))
            named.trees[plain(name)] = _without_ignored(other, "", ("", ""), done=False).tree
    text = context.text(file) if more.dockerfile is None else more.dockerfile  # which may well be ignored
    # The client knows which patterns are meant, if it has the Dockerfile.
    context = _without_ignored(context, file, more.ignored, done=not remote and more.dockerfile is not None)
    return msgspec.structs.replace(context, named=named), text


async def _content(request: web.Request, came: bytes) -> AsyncGenerator[bytes, None]:
    """Pieces of a size that is worth a trip to another thread."""
    held, size = [came], len(came)
    async for chunk in request.content.iter_any():
        held.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _without_ignored(context: Context, file: str, given: tuple[str, str], *, done: bool) -> Context:
    """As the context's own patterns say: clients send the Dockerfile even so, and a remote context has all of it.

    done: the client has left out what is meant, by the patterns that are given.
    """
    tree, (name, text) = context.tree, given
    if not done:
        name = next((name for name in (f"{file}.dockerignore", ".dockerignore") if name in tree.entries), "")
        text = context.text(name) if name else ""
    if not name:
        return context
    try:
        left_out = ignoring(text)
    except BadPattern as error:
        raise Invalid(f"{name}: {error}") from None
    kept = tree.entries.values() if done else [one for one in tree.entries.values() if not left_out(one.path)]
    return Context(tree=Tree(tree.name, kept, tree.source, (name, left_out)), place=context.place)
