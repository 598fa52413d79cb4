"""swarmctl manifest ...: lists of manifests, which make one image of those for several platforms.

A list is made here, in a file of the directory that contexts are in too, and exists for others once it is pushed.
"""

from __future__ import annotations

import os
import sys
from binascii import b2a_base64

from swarmd.swarmctl import target
from swarmd.swarmctl.client import Client, Refusal, path_of, segment
from swarmd.swarmctl.jsontext import dumps, indented, loads
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.references import in_full, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def add_inspect(parser: Parser) -> None:
    parser.switch("--insecure", help="the registry's certificate is not checked")
    parser.switch("-v", "--verbose", help="with digest and platform; of a list, each manifest")
    parser.argument("names", "[LIST] MANIFEST", "+")
    parser.set_defaults(run=inspect)


def add_create(parser: Parser) -> None:
    parser.switch("-a", "--amend", help="add to a list that is here")
    parser.switch("--insecure", help="the registries' certificates are not checked")
    parser.argument("list", "LIST")
    parser.argument("manifests", "MANIFEST", "+")
    parser.set_defaults(run=create)


def add_annotate(parser: Parser) -> None:
    parser.text("--arch", default="", help="architecture, such as arm64")
    parser.text("--os", default="", help="operating system")
    parser.several("--os-features")
    parser.text("--os-version", default="")
    parser.text("--variant", default="", help="of the architecture, such as v8")
    parser.argument("list", "LIST")
    parser.argument("manifest", "MANIFEST")
    parser.set_defaults(run=annotate, local=True)


def add_push(parser: Parser) -> None:
    parser.switch("--insecure", help="the registry's certificate is not checked")
    parser.switch("-p", "--purge", help="remove the list here afterwards")
    parser.argument("list", "LIST")
    parser.set_defaults(run=push)


def add_rm(parser: Parser) -> None:
    parser.argument("lists", "LIST", "+")
    parser.set_defaults(run=remove, local=True)


# ---------------------------------------------------------------- in registries


def inspect(client: Client, args: Args) -> None:
    if len(args.names) > 2:
        raise Refusal(f"too many names: {' '.join(args.names[2:])}; give a manifest, or a list and a manifest of it")
    *lists, name = args.names
    if lists:
        entry = _member(_read(args, lists[0]), lists[0], name)
        found = _fetched(client, entry["Ref"], args.insecure) | {"Platform": entry["platform"]}
    elif (kept := _place(args, name)) and os.path.exists(kept):
        _show(_index(_read(args, name)))
        return
    else:
        found = _fetched(client, name, args.insecure)
    content = loads(found["Content"])
    if not args.verbose:
        _show(content)
    elif "manifests" in content:
        repository = split(found["Ref"])[0]
        members = [
            (one, _fetched(client, f"{repository}@{one['digest']}", args.insecure)) for one in content["manifests"]
        ]
        _show([_verbose(member, one.get("platform")) for one, member in members])
    else:
        _show(_verbose(found, found["Platform"]))


def _fetched(client: Client, name: str, insecure: bool) -> dict[str, Any]:
    from swarmd.swarmctl.credentials import Logins

    path = f"/swarmd/manifests/{path_of(name)}"
    return dict(client.get(path, Logins().header(name), insecure=insecure or None))


def _verbose(found: dict[str, Any], platform: object) -> dict[str, Any]:
    kind = "SchemaV2Manifest" if found["Descriptor"]["mediaType"] == _DOCKER_MANIFEST else "OCIManifest"
    descriptor = found["Descriptor"] | ({"platform": platform} if platform else {})
    raw = b2a_base64(found["Content"].encode(), newline=False).decode()
    return {"Ref": found["Ref"], "Descriptor": descriptor, "Raw": raw, kind: loads(found["Content"])}


def push(client: Client, args: Args) -> None:
    from swarmd.swarmctl.credentials import Logins

    entries = _read(args, args.list)
    index = _index(entries)
    wanted = {
        "MediaType": index["mediaType"],
        "Content": indented(index),
        "From": [f"{split(entry['Ref'])[0]}@{entry['digest']}" for entry in entries],
    }
    path = f"/swarmd/manifests/{path_of(in_full(args.list))}"
    print(client.post(path, wanted, Logins().header(args.list), insecure=args.insecure or None)["Digest"])
    if args.purge:
        os.unlink(_place(args, args.list))


# ---------------------------------------------------------------- here


def create(client: Client, args: Args) -> None:
    there = os.path.exists(_place(args, args.list))
    if there and not args.amend:
        raise Refusal(f"list {args.list} is here already: add to it with --amend, or remove it with 'manifest rm'")
    entries = _read(args, args.list) if there else []
    for name in args.manifests:
        found = _fetched(client, in_full(name), args.insecure)
        content = loads(found["Content"])
        if "manifests" in content:
            raise Refusal(f"{name} is a list itself: name the manifests in it by their digests")
        entry = {"Ref": found["Ref"], **found["Descriptor"], "platform": found["Platform"] or {}}
        entries = [one for one in entries if one["Ref"] != entry["Ref"]] + [entry]
    _write(args, args.list, entries)
    print(f"Created manifest list {in_full(args.list)}")


def annotate(client: Client, args: Args) -> None:
    entries = _read(args, args.list)
    given = {
        "architecture": args.arch,
        "os": args.os,
        "variant": args.variant,
        "os.version": args.os_version,
        "os.features": args.os_features,
    }
    entry = _member(entries, args.list, args.manifest)
    entry["platform"] = {**entry["platform"], **{name: value for name, value in given.items() if value}}
    _write(args, args.list, entries)


def remove(client: Client, args: Args) -> int:
    code = 0
    for name in args.lists:
        try:
            os.unlink(_place(args, name))
        except FileNotFoundError:
            print(f"swarmctl: {_absent(name)}", file=sys.stderr)
            code = 1
    return code


def _index(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Docker's form where all that it lists has Docker's."""
    is_docker = all(entry["mediaType"] == _DOCKER_MANIFEST for entry in entries)
    listed = [{key: value for key, value in entry.items() if key != "Ref"} for entry in entries]
    return {"schemaVersion": 2, "mediaType": _DOCKER_INDEX if is_docker else _OCI_INDEX, "manifests": listed}


def _member(entries: list[dict[str, Any]], name: str, manifest: str) -> dict[str, Any]:
    wanted = in_full(manifest)
    for entry in entries:
        if entry["Ref"] == wanted:
            return entry
    there = ", ".join(entry["Ref"] for entry in entries)
    raise Refusal(f"list {name} has no manifest {manifest}: it has {there}")


def _place(args: Args, name: str) -> str:
    return os.path.join(target.directory(args.daemon_flags.config), "manifests", segment(in_full(name)))


def _absent(name: str) -> str:
    return f"no list {name} is here: make it with 'manifest create'"


def _read(args: Args, name: str) -> list[dict[str, Any]]:
    place = _place(args, name)
    try:
        with open(place, "rb") as file:
            return list(loads(file.read()))
    except FileNotFoundError:
        raise Refusal(_absent(name)) from None
    except (OSError, ValueError, TypeError) as problem:
        raise Refusal(f"{place} cannot be read as a list of manifests: {problem}: remove it") from None


def _write(args: Args, name: str, entries: list[dict[str, Any]]) -> None:
    place = _place(args, name)
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    with open(f"{place}.{os.getpid()}", "w") as file:
        file.write(dumps(entries))
    os.replace(file.name, place)


def _show(value: object) -> None:
    print(indented(value))
