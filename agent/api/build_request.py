"""What POST /build asks for: its query, as Docker's clients write it, and the line of JSON that swarmctl puts first."""

import json
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.fields import Fields
from swarmd.agent.api.host_config import limits
from swarmd.agent.api.images import name_to_give, platform
from swarmd.proto.errors import Invalid
from swarmd.runtime.model import Struct, Ulimit

EXTENDED = "application/vnd.swarmd.build"
_LONGEST_LINE = 16 << 20
_INLINE = "BUILDKIT_INLINE_CACHE"  # the build argument by which Docker's clients ask for it
_LIMITS = {
    "memory": "Memory",
    "memswap": "MemorySwap",
    "cpushares": "CpuShares",
    "cpusetcpus": "CpusetCpus",
    "cpusetmems": "CpusetMems",
    "cpuperiod": "CpuPeriod",
    "cpuquota": "CpuQuota",
}


class More(Struct, frozen=True, forbid_unknown_fields=True):
    """The line of JSON: secrets in base64 by their ids, agents' sockets on this host by theirs, a Dockerfile's text.

    contexts: by their names; see build_contexts.py.  fresh: stages that are to be built anew.  annotations: of the
    manifest.  ignored: the name and text of the .dockerignore by which the client has left files out.  check: only read
    the Dockerfile, and warn.
    """

    secrets: dict[str, bytes] = msgspec.field(default_factory=dict)
    ssh: dict[str, str] = msgspec.field(default_factory=dict)
    allow: tuple[str, ...] = ()
    dockerfile: str | None = None
    contexts: dict[str, str] = msgspec.field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    ignored: tuple[str, str] = ("", "")
    check: bool = False
    inline_cache: bool = False


async def more(request: web.Request) -> tuple[More, bytes]:
    """What stands before the context, and so much of the context as came with it."""
    if request.content_type == "application/json":
        raise Invalid("the body of a build is its context, a tar archive, and no JSON")
    if request.content_type != EXTENDED:
        return More(), b""
    came = bytearray()
    while (end := came.find(b"\n")) < 0:
        piece = await request.content.readany()
        if not piece or len(came) > _LONGEST_LINE:
            raise Invalid("the body of the build does not begin with a line of JSON")
        came += piece
    try:
        return msgspec.json.decode(came[:end], type=More), bytes(came[end + 1 :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the line of JSON before the context of the build is wrong: {error}") from None


def asked(request: web.Request, beside: More) -> dict[str, Any]:
    """What the request's own fields are, but for the Dockerfile."""
    if request.query.get("version", "1") != "1":
        raise Invalid("version 2 of the builder is BuildKit's protocol: use swarmctl build, or DOCKER_BUILDKIT=0")
    for name in ("cgroupparent", "securityopt", "isolation"):
        if request.query.get(name, "") not in ("", "default", "[]", "null"):
            raise Invalid(f"query parameter {name} is not supported for a build")
    if outputs := request.query.get("outputs", ""):
        raise Invalid(f"query parameter outputs is for BuildKit: {outputs[:80]}; swarmctl build --output writes files")
    resources = {theirs: _value(request.query[ours]) for ours, theirs in _LIMITS.items() if request.query.get(ours)}
    args = {name: value for name, value in _object(request, "buildargs").items() if value is not None}
    return {
        "refs": tuple(str(name_to_give(ref)) for ref in request.query.getall("t", []) if ref),
        "target": request.query.get("target", ""),
        "args": {name: value for name, value in args.items() if name != _INLINE},
        "labels": _object(request, "labels"),
        "platform": platform(request),
        "no_cache": query.flag(request, "nocache"),
        "pull": query.flag(request, "pull"),
        "squash": query.flag(request, "squash"),
        "cache_from": tuple(_list(request, "cachefrom")),
        "inline_cache": beside.inline_cache or args.get(_INLINE) not in (None, "0", "false"),
        "network": request.query.get("networkmode", "") or "default",
        "extra_hosts": tuple(_words(request, "extrahosts")),
        "limits": limits(Fields(resources)),
        "shm_size": query.number(request, "shmsize"),
        "ulimits": _ulimits(request),
        "secrets": beside.secrets,
        "ssh": {id: Path(path) for id, path in beside.ssh.items()},
        "allowed": beside.allow,
        "fresh": beside.fresh,
        "annotations": beside.annotations,
    }


def _value(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _object(request: web.Request, name: str) -> dict[str, Any]:
    text = request.query.get(name, "")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str | None) for value in found.values()):
        raise Invalid(f"query parameter {name} is not a JSON object of strings: {text[:80]!r}")
    return found


def _list(request: web.Request, name: str) -> list[str]:
    text = request.query.get(name, "")
    try:
        found = json.loads(text) if text else []
    except (ValueError, RecursionError):
        found = ""
    if not isinstance(found or [], list) or not all(isinstance(word, str) for word in found or ()):
        raise Invalid(f"query parameter {name} is not a JSON list of strings: {text[:80]!r}")
    return found or []


def _words(request: web.Request, name: str) -> list[str]:
    """Given several times, or once as Docker's command line does, separated by commas."""
    return [word for text in request.query.getall(name, []) for word in text.split(",") if word]


def _ulimits(request: web.Request) -> tuple[Ulimit, ...]:
    text = request.query.get("ulimits", "")
    try:
        found = json.loads(text) if text else []
        return tuple(Ulimit(name=one["Name"], soft=int(one["Soft"]), hard=int(one["Hard"])) for one in found or ())
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Invalid(f"query parameter ulimits is not a list of Name, Soft and Hard: {text[:80]!r}") from None
