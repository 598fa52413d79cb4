"""swarmctl build: an image of a Dockerfile and the files around it."""

from __future__ import annotations

import sys

from swarmd.swarmctl import build_output, build_request, build_sources, container_values, values
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.container_flags import WINDOWS
from swarmd.swarmctl.jsontext import dumps
from swarmd.swarmctl.parser import Args, BadValue, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_ABSENT = {
    "--attest": "no attestations are made: the image's history and --cache-to type=inline say how it was made",
    "--builder": "the daemon is the builder: choose another one with -H or a context",
    "--cgroup-parent": "steps are below the daemon's own group: limit them with --memory and --cpu-quota",
    "--disable-content-trust": "images are checked by their digests; there is no content trust to disable",
    "--isolation": WINDOWS,
    "--security-opt": "steps run with the daemon's own profile; RUN --security=insecure and --allow do without",
}


def add_build(parser: Parser) -> None:
    parser.several("--add-host", type=container_values.host_entry, metavar="NAME:ADDRESS", help="line in /etc/hosts")
    parser.several("--allow", type=build_request.entitlement, metavar="NAME",
                   help="let RUN lines have security.insecure or network.host")  # fmt: skip
    parser.several("--annotation", type=values.pair, metavar="KEY=VALUE", help="of the image's manifest")
    parser.several("--build-arg", type=build_request.named, metavar="NAME[=VALUE]", help="value of an ARG")
    parser.several("--build-context", type=build_sources.named, metavar="NAME=DIRECTORY|URL|docker-image://IMAGE",
                   help="what FROM NAME and --from=NAME mean")  # fmt: skip
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
    parser.switch("--load", help="keep the image, beside what --output writes")
    parser.text("-m", "--memory", type=values.size, metavar="SIZE", help="limit of each step")
    parser.text("--memory-swap", type=container_values.swap, metavar="SIZE", help="memory and swap; -1: no limit")
    parser.text("--metadata-file", metavar="FILE", help="write the image's digest and names there, as JSON")
    parser.text("--network", metavar="NAME", help="of RUN: default, none, host, or a network")
    parser.switch("--no-cache", help="do all steps anew")
    parser.several("--no-cache-filter", metavar="STAGE", help="do the steps of a stage anew")
    parser.several("-o", "--output", type=build_output.target, metavar="DIRECTORY|type=TYPE,dest=PATH",
                   help="image, registry, local, tar, oci or docker")  # fmt: skip
    parser.text("--platform", type=_one_platform, metavar="OS/ARCHITECTURE", help="that the image is for")
    parser.text("--progress", choices=("auto", "plain", "tty", "quiet", "rawjson"), default="auto", metavar="HOW",
                help="auto, plain, tty, quiet, rawjson")  # fmt: skip
    parser.text("--provenance", type=_none, metavar="false", help="false, as no attestations are made")
    parser.switch("--pull", help="look for newer base images")
    parser.switch("--push", help="push the image to its registries")
    parser.switch("-q", "--quiet", help="print the image's id only")
    parser.text("--sbom", type=_none, metavar="false", help="false, as no attestations are made")
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


def _none(text: str) -> str:
    if text not in ("false", "0"):
        raise BadValue(f"{text!r}: no attestations are made, so only false can be")
    return text


def build(client: Client, args: Args) -> int:
    from swarmd.swarmctl.build_progress import Quiet
    from swarmd.swarmctl.build_watch import Watch, display
    from swarmd.swarmctl.credentials import Logins

    if not args.force_rm:
        raise Refusal("containers of steps are always removed: what they made is in the cache")
    for path in filter(None, (args.iidfile, args.metadata_file)):
        build_output.check(path)
    files = build_output.Files(args.output, args.tag, push=args.push, stays=args.load)
    headers = {"Content-Type": build_request.MEDIA_TYPE, **Logins().of_all()}
    query, more = build_request.query(args), build_request.beside(args, client.host)
    source = build_sources.source(args, more)
    content = source.content
    if args.check:
        more["check"] = True
        content = iter((bytes(1024),)) if "dockerfile" in more else content
    query["t"] = files.names or None
    try:
        watch = Watch(Quiet(sys.stderr) if args.check else display(args), source.context)
        body = _body(more, watch.sending(_compressed(content) if args.compress else content))
        try:
            found = watch.follow(lambda: client.send("/build", body, headers, **query, **source.query))
        finally:
            if not args.quiet and not args.check:  # they may say why it has failed
                client.warn({"Warnings": watch.warnings})
        if args.check:
            print(*(found.warnings or ["nothing is doubtful in the Dockerfile"]), sep="\n")
            return 1 if found.warnings else 0
        if args.iidfile:
            build_output.write(args.iidfile, found.id)
        files.fetch(client, found.id)
        files.push(client, quiet=args.quiet)
        if args.metadata_file:
            build_output.write(args.metadata_file, dumps(build_output.metadata(client, found)) + "\n")
    finally:
        files.forget(client)
    if (args.quiet or args.progress == "quiet") and not files.takes_stdout:
        print(found.id)
    return 0


def _body(more: dict[str, Any], content: Iterator[bytes]) -> Iterator[bytes]:
    yield dumps(more).encode() + b"\n"
    yield from content


def _compressed(content: Iterator[bytes]) -> Iterator[bytes]:
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in content:
        yield packer.compress(piece)
    yield packer.flush()
