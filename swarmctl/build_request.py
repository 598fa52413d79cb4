"""What `build` asks of the daemon: the query of POST /build, and the line of JSON before the context.

Secrets, agents and a Dockerfile that is not in the context go into that line; all else has a name in Docker's API.
"""

from __future__ import annotations

import os
import stat
from binascii import b2a_base64

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.jsontext import dumps
from swarmd.swarmctl.parser import Args, BadValue
from swarmd.swarmctl.values import comma_separated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MEDIA_TYPE = "application/vnd.swarmd.build"
_ENTITLEMENTS = ("network.host", "security.insecure")
_LARGEST_SECRET = 500 * 1024  # bytes


def query(args: Args) -> dict[str, Any]:
    return {
        "target": args.target or None,
        "buildargs": dumps(given) if (given := arguments(args.build_arg)) else None,
        "labels": dumps(dict(args.label)) if args.label else None,
        "platform": args.platform or None,
        "nocache": args.no_cache or None,
        "pull": args.pull or None,
        "squash": args.squash or None,
        "networkmode": args.network or None,
        "extrahosts": args.add_host or None,
        "cachefrom": dumps(args.cache_from) if args.cache_from else None,
        "memory": args.memory,
        "memswap": args.memory_swap,
        "cpushares": args.cpu_shares,
        "cpuperiod": args.cpu_period,
        "cpuquota": args.cpu_quota,
        "cpusetcpus": args.cpuset_cpus or None,
        "cpusetmems": args.cpuset_mems or None,
        "shmsize": args.shm_size,
        "ulimits": dumps(args.ulimit) if args.ulimit else None,
        "progress": "events",
    }


def beside(args: Args, host: str) -> dict[str, Any]:
    """For the line of JSON, but for the Dockerfile."""
    more: dict[str, Any] = {}
    if args.secret:
        more["secrets"] = dict(map(_secret, args.secret))
    if args.ssh:
        more["ssh"] = dict(_agent(word, host) for word in args.ssh)
    if args.allow:
        more["allow"] = args.allow
    if args.cache_to:
        more["inline_cache"] = True
    if args.no_cache_filter:
        more["fresh"] = [name for word in args.no_cache_filter for name in word.split(",") if name]
    if args.annotation:
        more["annotations"] = dict(args.annotation)
    return more


def arguments(words: list[str]) -> dict[str, str]:
    """NAME=value, or a bare NAME with its value here; one without a value is not given.

    SOURCE_DATE_EPOCH is given if it is set here, as programs that make the same twice expect.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    found = {"SOURCE_DATE_EPOCH": epoch} if epoch else {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals or name in os.environ:
            found[name] = value if equals else os.environ[name]
    return found


def named(text: str) -> str:
    if not text.partition("=")[0]:
        raise BadValue(f"{text!r} has no name: write it as NAME=value")
    return text


def entitlement(text: str) -> str:
    if text not in _ENTITLEMENTS:
        raise BadValue(f"{text!r} is nothing that can be allowed: {' or '.join(_ENTITLEMENTS)}")
    return text


def cache_source(text: str) -> str:
    """The image of 'IMAGE' or 'type=registry,ref=IMAGE'."""
    if "=" not in text:
        return text
    fields = fields_of(text, ("type", "ref"))
    if fields.get("type", "registry") != "registry" or not fields.get("ref"):
        raise BadValue(f"{text!r}: write it as an image, or type=registry,ref=IMAGE")
    return fields["ref"]


def cache_target(text: str) -> str:
    fields = fields_of(text if "=" in text else f"type={text}", ("type",))
    if fields.get("type") != "inline":
        raise BadValue(f"{text!r}: the cache goes into the image itself, with type=inline, and is pushed with it")
    return "inline"


def fields_of(text: str, known: tuple[str, ...]) -> dict[str, str]:
    """'a=b,c=d'; BadValue for a field that is not known."""
    fields = {}
    for part in comma_separated(text):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise BadValue(f"{part!r} in {text!r}: it has {', '.join(f'{name}=' for name in known)}")
        fields[key] = value
    return fields


# ---------------------------------------------------------------- secrets


def secret(text: str) -> dict[str, str]:
    fields = fields_of(text, ("id", "type", "src", "source", "env"))
    if not fields.get("id"):
        raise BadValue(f"{text!r} has no id: write it as id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if fields.get("type", "file") not in ("file", "env"):
        raise BadValue(f"{text!r}: type is file or env")
    return fields


def _secret(fields: dict[str, str]) -> tuple[str, str]:
    """Its id, and its content in base64."""
    id, path = fields["id"], fields.get("src") or fields.get("source") or ""
    variable = fields.get("env") or (path if fields.get("type") == "env" else "")
    if not variable and not path and fields.get("type") != "file" and id in os.environ:
        variable = id
    if variable or fields.get("type") == "env":
        variable = variable or id
        if variable not in os.environ:
            raise Refusal(f"secret {id}: variable {variable} is not set here")
        return id, _base64(os.environb[os.fsencode(variable)])
    path = path or id
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_SECRET + 1)
    except OSError as problem:
        raise Refusal(f"secret {id}: {path}: {(problem.strerror or str(problem)).lower()}") from None
    if len(data) > _LARGEST_SECRET:
        raise Refusal(f"secret {id}: {path} has more than {_LARGEST_SECRET // 1024} KiB")
    return id, _base64(data)


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def _agent(word: str, host: str) -> tuple[str, str]:
    """'default' or 'id=socket': its id, and where its socket is."""
    if not host.startswith("unix://"):
        raise Refusal(f"--ssh {word}: an agent serves its own host only, and the daemon is at {host}: build there")
    id, _, path = word.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise Refusal(f"--ssh {word}: no agent runs here, $SSH_AUTH_SOCK is not set: start one, or write {id}=SOCKET")
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as problem:
        raise Refusal(f"--ssh {word}: {path}: {(problem.strerror or str(problem)).lower()}") from None
    if not is_socket:
        raise Refusal(f"--ssh {word}: {path} is no agent's socket: give a key to the agent with ssh-add")
    return id or "default", os.path.abspath(path)
