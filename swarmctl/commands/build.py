"""swarmctl build: an image of a Dockerfile and the files around it."""

from __future__ import annotations

import os
import sys

from swarmd.swarmctl import build_output, build_request, container_values, values
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.container_flags import WINDOWS
from swarmd.swarmctl.jsontext import dumps
from swarmd.swarmctl.parser import Args, BadValue, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from swarmd.swarmctl.build_context import Context

_URLS = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
_PIECE = 256 * 1024
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_ABSENT = {
    "--cgroup-parent": "steps are below the daemon's own group: limit them with --memory and --cpu-quota",
    "--disable-content-trust": "images are checked by their digests; there is no content trust to disable",
    "--isolation": WINDOWS,
    "--security-opt": "steps run with the daemon's own profile; RUN --security=insecure and --allow do without",
}


def add_build(parser: Parser) -> None:
    parser.several("--add-host", type=container_values.host_entry, metavar="NAME:ADDRESS", help="line in /etc/hosts")
    parser.several("--allow", type=build_request.entitlement, metavar="NAME", help="security.insecure or network.host, to RUN lines")
    parser.several("--build-arg", type=build_request.named, metavar="NAME[=VALUE]", help="value of an ARG")
    parser.several("--cache-from", type=build_request.cache_source, metavar="IMAGE", help="image with steps to reuse")
    parser.several("--cache-to", type=build_request.cache_target, metavar="type=inline",
                   help="let the image say by which keys its steps are found")  # fmt: skip
    parser.switch("--check", help="tell what is doubtful in the Dockerfile, and build nothing")
    parser.switch("--compress", help="compress the context on its way")
    parser.text("--cpu-period", type=values.count, metavar="US", help="period of --cpu-quota")
    parser.text("--cpu-quota", type=values.count, metavar="US", help="processor time of a step in a period")
    parser.text("-c", "--cpu-shares", type=values.count, metavar="N", help="weight against other containers")
    parser.text("--cpuset-cpus", metavar="LIST", help="processors, such as 0-3,5")
    parser.text("--cpuset-mems", metavar="LIST", help="memory nodes, such as 0,1")
    parser.text("-f", "--file", metavar="PATH|-", help="the Dockerfile (default: Dockerfile in the context)")
    parser.switch("--force-rm", "--rm", default=True, help="remove containers of steps, as is always done")
    parser.text("--iidfile", metavar="FILE", help="write the image's id there")
    parser.several("--label", type=values.pair, metavar="KEY=VALUE", help="of the image")
    parser.text("-m", "--memory", type=values.size, metavar="SIZE", help="limit of each step")
    parser.text("--memory-swap", type=container_values.swap, metavar="SIZE", help="memory and swap; -1: no limit")
    parser.text("--network", metavar="NAME", help="of RUN: default, none, host, or a network")
    parser.switch("--no-cache", help="do all steps anew")
    parser.several("-o", "--output", type=build_output.target, metavar="DIRECTORY|type=TYPE,dest=PATH",
                   help="image, local, tar, oci or docker")  # fmt: skip
    parser.text("--platform", type=_one_platform, metavar="OS/ARCHITECTURE", help="that the image is for")
    parser.text("--progress", choices=("auto", "plain", "tty", "quiet", "rawjson"), default="auto", metavar="HOW",
                help="auto, plain, tty, quiet, rawjson")  # fmt: skip
    parser.switch("--pull", help="look for newer base images")
    parser.switch("-q", "--quiet", help="print the image's id only")
    parser.several("--secret", type=build_request.secret, metavar="id=NAME,src=FILE|env=NAME",
                   help="for RUN --mount=type=secret")  # fmt: skip
    parser.text("--shm-size", type=values.size, metavar="SIZE", help="of /dev/shm")
    parser.switch("--squash", help="one layer of all that the build adds")
    parser.several("--ssh", metavar="default|ID=SOCKET", help="agent for RUN --mount=type=ssh")
    parser.several("-t", "--tag", metavar="NAME[:TAG]", help="name of the image")
    parser.text("--target", metavar="STAGE", help="the stage to build")
    parser.several("--ulimit", type=values.ulimit, metavar="NAME=SOFT[:HARD]", help="of steps")
    parser.lacks(_ABSENT)
    parser.argument("context", "DIRECTORY|URL|-")
    parser.set_defaults(run=build)


def _one_platform(text: str) -> str:
    if "," in text:
        raise BadValue(f"{text!r} are several: build one at a time, and join them with 'manifest create'")
    return text


def build(client: Client, args: Args) -> int:
    from swarmd.swarmctl.build_progress import Quiet
    from swarmd.swarmctl.build_watch import Watch, display
    from swarmd.swarmctl.credentials import Logins

    if not args.force_rm:
        raise Refusal("containers of steps are always removed: what they made is in the cache")
    files = build_output.Files(args.output, args.tag)
    headers = {"Content-Type": build_request.MEDIA_TYPE, **Logins().of_all()}
    query, more = build_request.query(args), build_request.beside(args, client.host)
    source, content = _source(args, more)
    if args.check:
        more["check"] = True
        content = iter((bytes(1024),)) if "dockerfile" in more else content
    query["t"] = files.names or None
    try:
        watch = Watch(Quiet(sys.stderr) if args.check else display(args), source.context)
        body = _body(more, watch.sending(_compressed(content) if args.compress else content))
        found = watch.follow(lambda: client.send("/build", body, headers, **query, **source.query))
        if args.check:
            print(*(found.warnings or ["nothing is doubtful in the Dockerfile"]), sep="\n")
            return 1 if found.warnings else 0
        if not args.quiet:
            client.warn({"Warnings": found.warnings})
        if args.iidfile:
            _write_id(args.iidfile, found.id)
        files.fetch(client, found.id)
    finally:
        files.forget(client)
    if (args.quiet or args.progress == "quiet") and not files.takes_stdout:
        print(found.id)
    return 0


class _Source:
    """Where the context comes from: its part of the query, and the directory if it is one."""

    def __init__(self, query: dict[str, Any], context: Context | None = None) -> None:
        self.query = query
        self.context = context


def _source(args: Args, more: dict[str, Any]) -> tuple[_Source, Iterator[bytes]]:
    """Also put the Dockerfile beside the context, where it is not in it."""
    place, file = args.context, args.file
    if file == "-":
        if place == "-":
            raise Refusal("the Dockerfile and the context can't both be on standard input")
        more["dockerfile"] = _text(b"".join(_rest(b"")))
    if place == "-":
        return _from_input(more, file)
    if not os.path.exists(place) and (place.startswith(_URLS) or place.endswith(".git")):
        return _Source({"remote": place, "dockerfile": None if file == "-" else file}), iter(())
    if not os.path.isdir(place):
        what = "is a file: name the directory around it" if os.path.exists(place) else "is not there"
        raise Refusal(f"build context {place} {what}")
    return _from_directory(place, file, more)


def _from_directory(place: str, file: str | None, more: dict[str, Any]) -> tuple[_Source, Iterator[bytes]]:
    from swarmd.swarmctl.build_context import Context, ignore_text, text_of

    name = "Dockerfile"
    if file != "-":
        path = file or _default(place)
        if not os.path.exists(path):
            raise Refusal(f"{path} is not there: write a Dockerfile, or name it with -f")
        more["dockerfile"] = text_of(path)
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(place))
        name = path if inside.startswith("../") else inside
    context = Context(place, ignore_text(place, "" if file == "-" else path))
    return _Source({"dockerfile": name}, context), context.tar()


def _default(place: str) -> str:
    path = os.path.join(place, "Dockerfile")
    other = os.path.join(place, "dockerfile")
    return other if not os.path.exists(path) and os.path.exists(other) else path


def _from_input(more: dict[str, Any], file: str | None) -> tuple[_Source, Iterator[bytes]]:
    """A tar, compressed or not, or a Dockerfile by itself."""
    start = _first(1024)
    if start[257:262] == b"ustar" or start.startswith(_MAGIC):
        return _Source({"dockerfile": file}), _rest(start)
    if not start:
        raise Refusal("there is nothing on standard input: send a Dockerfile, or a context as a tar")
    if file:
        raise Refusal(f"standard input is a Dockerfile, so -f {file} is one too many")
    more["dockerfile"] = _text(start + b"".join(_rest(b"")))
    return _Source({}), iter((bytes(1024),))


def _first(size: int) -> bytes:
    data = b""
    while len(data) < size and (more := os.read(sys.stdin.fileno(), size - len(data))):
        data += more
    return data


def _rest(start: bytes) -> Iterator[bytes]:
    yield start
    while data := os.read(sys.stdin.fileno(), _PIECE):
        yield data


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal("what is on standard input is neither a tar nor a Dockerfile in UTF-8") from None


def _body(more: dict[str, Any], content: Iterator[bytes]) -> Iterator[bytes]:
    yield dumps(more).encode() + b"\n"
    yield from content


def _compressed(content: Iterator[bytes]) -> Iterator[bytes]:
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in content:
        yield packer.compress(piece)
    yield packer.flush()


def _write_id(path: str, id: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(id)
    except OSError as problem:
        raise Refusal(f"{path}: {(problem.strerror or str(problem)).lower()}") from None
