"""swarmctl context ...: names for daemons, kept by contexts.Store."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

from swarmd.swarmctl import output, target
from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.contexts import Context, Store
from swarmd.swarmctl.dial import DEFAULT_HOST
from swarmd.swarmctl.parser import Args, BadValue, Parser, boolean
from swarmd.swarmctl.target import DEFAULT
from swarmd.swarmctl.values import keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE = output.Table(
    {"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"},
    quiet="PlainName",
)
_FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
_KEYS = ("host", "from", "skip-tls-verify", *_FILES)


def _ready(parser: Parser, run: Any) -> None:
    """`run` gets the store instead of a client."""
    parser.set_defaults(
        run=lambda client, args: run(Store(target.directory(args.daemon_flags.config)), args), local=True
    )


def _described(parser: Parser) -> None:
    parser.text("--description", help="what it is for")
    parser.text("--docker", help="host=ADDRESS[,ca=FILE,cert=FILE,key=FILE][,skip-tls-verify=true], or from=CONTEXT",
                metavar="KEY=VALUE,...")  # fmt: skip


def add_create(parser: Parser) -> None:
    _described(parser)
    parser.text("--from", dest="source", metavar="CONTEXT", help="start with a copy of this one")
    parser.argument("name", "CONTEXT")
    _ready(parser, create)


def create(store: Store, args: Args) -> None:
    if args.name in {context.name for context in store.all()}:
        raise Refusal(f"context {args.name} exists: 'swarmctl context update' changes it")
    if args.source and args.docker:
        raise Refusal("--from and --docker both say where the daemon is: give one of them")
    # A copy of the context in use, where nothing is said.
    start = _get(store, args.source or target.context_name(args.daemon_flags))
    made = replace(start, name=args.name, description=args.description or (start.description if args.source else ""))
    store.put(_edited(store, made, args.docker) if args.docker else made)
    print(args.name)
    print(f'Made context "{args.name}"', file=sys.stderr)


def _get(store: Store, name: str) -> Context:
    return Context(DEFAULT, target.host_in_environment() or DEFAULT_HOST) if name == DEFAULT else store.get(name)


def _edited(store: Store, context: Context, text: str) -> Context:
    try:
        fields = keyed(text, _KEYS)
        verify = not boolean(fields.get("skip-tls-verify", "false"))
    except BadValue as problem:
        raise Refusal(f"--docker {problem}") from None
    if "from" in fields:
        base = _get(store, fields["from"])
        return replace(context, host=base.host, tls=base.tls, verify=base.verify)
    if "host" not in fields:
        raise Refusal(f"--docker {text!r} lacks host=ADDRESS")
    try:
        tls = {file: Path(fields[key]).read_bytes() for key, file in _FILES.items() if key in fields}
    except OSError as problem:
        raise Refusal(f"{problem.filename}: {(problem.strerror or '').lower()}") from None
    if tls and len(tls) < len(_FILES):
        raise Refusal("TLS takes all of ca=FILE, cert=FILE and key=FILE")
    return replace(context, host=fields["host"], tls=tls, verify=verify)


def add_update(parser: Parser) -> None:
    _described(parser)
    parser.argument("name", "CONTEXT")
    _ready(parser, update)


def update(store: Store, args: Args) -> None:
    if not store.has(args.name):
        store.get(args.name)
        raise Refusal(f"context {args.name} is Docker's: 'docker context update' changes it")
    context = store.get(args.name)
    if args.description is not None:
        context = replace(context, description=args.description)
    store.put(_edited(store, context, args.docker) if args.docker else context)
    print(args.name)


def add_ls(parser: Parser) -> None:
    parser.text("--format", metavar="TEMPLATE", help="table, json, or a template such as '{{.Name}}'")
    parser.switch("-q", "--quiet", help="names only")
    _ready(parser, ls)


def ls(store: Store, args: Args) -> None:
    standard = replace(_get(store, DEFAULT), description="this host, or what the environment says")
    shows_mark = not args.format or args.format.startswith("table")
    rows = []
    for context in (standard, *store.all()):
        current = context.name == target.context_name(args.daemon_flags)
        rows.append(
            {
                "Name": context.name + (" *" if current and shows_mark else ""),
                "PlainName": context.name,
                "Current": current,
                "Description": context.description if context.ours else f"{context.description} (Docker's)".strip(),
                "DockerEndpoint": context.host,
                "Error": "",
            }
        )
    if args.format == "json":
        rows = [{key: value for key, value in row.items() if key != "PlainName"} for row in rows]
    _TABLE.show(rows, args)


def add_inspect(parser: Parser) -> None:
    parser.text("-f", "--format", metavar="TEMPLATE", help="json, or a template such as '{{.Endpoints.docker.Host}}'")
    parser.argument("names", "CONTEXT", "*")
    _ready(parser, inspect)


def inspect(store: Store, args: Args) -> None:
    found = [_get(store, name) for name in args.names or [target.context_name(args.daemon_flags)]]
    output.inspect([_shown(context) for context in found], args.format)


def _shown(context: Context) -> dict[str, Any]:
    files = {"docker": sorted(context.tls)} if context.tls else {}
    where = "" if context.directory is None else str(context.directory)
    return {**context.meta(), "TLSMaterial": files, "Storage": {"TLSPath": where}}


def add_show(parser: Parser) -> None:
    _ready(parser, lambda store, args: print(target.context_name(args.daemon_flags)))


def add_use(parser: Parser) -> None:
    parser.argument("name", "CONTEXT")
    _ready(parser, use)


def use(store: Store, args: Args) -> None:
    _get(store, args.name)
    store.use(args.name)
    print(args.name)
    if target.host_in_environment():
        print("note: SWARMCTL_HOST or DOCKER_HOST is set, and goes before the context", file=sys.stderr)


def add_rm(parser: Parser) -> None:
    parser.switch("-f", "--force", help="even the one in use")
    parser.argument("names", "CONTEXT", "+")
    _ready(parser, remove)


def remove(store: Store, args: Args) -> int:
    def one(name: str) -> None:
        if name == DEFAULT:
            raise Refusal("context default is always there")
        in_use = name == target.current(str(store.directory))
        if in_use and not args.force:
            raise Refusal(f"context {name} is in use: 'swarmctl context use default' first, or --force")
        store.remove(name)
        if in_use:
            store.use(DEFAULT)

    return output.each(args.names, one)


# ---------------------------------------------------------------- to and from a file: Docker's archive


def add_export(parser: Parser) -> None:
    parser.argument("name", "CONTEXT")
    parser.argument("file", "FILE|-", "?")
    _ready(parser, export)


def export(store: Store, args: Args) -> None:
    import tarfile

    context = _get(store, args.name)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        members = {f"tls/docker/{name}": data for name, data in context.tls.items()}
        for name, data in {"meta.json": json.dumps(context.meta()).encode(), **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            tar.addfile(entry, io.BytesIO(data))
    path = args.file or f"{args.name}.dockercontext"
    if path == "-":
        if sys.stdout.isatty():
            raise Refusal("an archive is nothing for a terminal: name a file, or send it somewhere")
        sys.stdout.buffer.write(content.getvalue())
        return
    try:
        with Path(path).open("xb") as file:
            Path(path).chmod(0o600)  # it may hold a key
            file.write(content.getvalue())
    except OSError as problem:
        raise Refusal(f"{path}: {(problem.strerror or '').lower()}") from None
    print(f"Wrote {path}", file=sys.stderr)


def add_import(parser: Parser) -> None:
    parser.argument("name", "CONTEXT")
    parser.argument("file", "FILE|-")
    _ready(parser, import_)


def import_(store: Store, args: Args) -> None:
    import tarfile

    if args.name in {context.name for context in store.all()}:
        raise Refusal(f"context {args.name} exists: remove it first, or choose another name")
    try:
        content = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            found = {
                entry.name.removeprefix("./"): file.read()
                for entry in tar
                if (file := tar.extractfile(entry)) is not None
            }
        endpoint = (meta := json.loads(found["meta.json"]))["Endpoints"]["docker"]
        tls = {name: found[f"tls/docker/{name}"] for name in _FILES.values() if f"tls/docker/{name}" in found}
        description = (meta.get("Metadata") or {}).get("Description", "")
        verify = not endpoint.get("SkipTLSVerify", False)
        context = Context(args.name, endpoint["Host"], description, verify, tls)
    except OSError as problem:
        raise Refusal(f"{args.file}: {(problem.strerror or str(problem)).lower()}") from None
    except (tarfile.TarError, ValueError, KeyError, TypeError):
        raise Refusal(f"{args.file} is no exported context: an archive with meta.json") from None
    store.put(context)
    print(args.name)
