"""build --output: what becomes of an image besides staying with the daemon: its files, or an archive of it.

An image that is to be files only, and has no name, gets one for as long as they come, so that it goes afterwards.
"""

from __future__ import annotations

import os
import sys

from swarmd.swarmctl.build_request import fields_of
from swarmd.swarmctl.client import Client, Refusal, path_of, segment
from swarmd.swarmctl.download import save
from swarmd.swarmctl.parser import BadValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from swarmd.swarmctl.build_progress import Built
    from swarmd.swarmctl.http import Response

_TYPES = ("image", "registry", "local", "tar", "oci", "docker")
PASSING = "swarmd-build-output"  # repository of names that are only for a while


class Target:
    """dest: a directory for local, a file for the others, '-' for standard output; '' for an image that stays.

    push: and goes to its registry.
    """

    __slots__ = ("dest", "kind", "name", "push")

    def __init__(self, kind: str, dest: str = "", name: str = "", *, push: bool = False) -> None:
        self.kind = kind
        self.dest = dest
        self.name = name
        self.push = push


def target(text: str) -> Target:
    if "=" not in text:
        return Target("tar", "-") if text == "-" else Target("local", text)
    fields = fields_of(text, ("type", "dest", "name", "push"))
    kind, dest = fields.get("type", ""), fields.get("dest", "")
    if kind not in _TYPES:
        raise BadValue(f"{text!r}: type is one of {', '.join(_TYPES)}")
    if kind == "local" and dest in ("", "-"):
        raise BadValue(f"{text!r}: write type=local,dest=DIRECTORY")
    images = ("image", "registry")
    if kind in images and dest:
        raise BadValue(f"{text!r}: an image stays with the daemon; type=oci or docker writes it to a file")
    push = fields.get("push", "false")
    if push not in ("true", "false") or (push == "true" and kind not in images):
        raise BadValue(f"{text!r}: push is true or false, and only an image is pushed")
    stays = kind in (*images, "docker")
    return Target(
        kind, dest or ("" if stays else "-"), fields.get("name", ""), push=kind == "registry" or push == "true"
    )


class Files:
    """What the flags of one build ask for. A docker archive without dest= is the image itself."""

    def __init__(self, targets: list[Target], tags: list[str], *, push: bool, stays: bool) -> None:
        self._targets = [one for one in targets if one.dest]
        self._tags = [*tags, *(one.name for one in targets if one.name)]
        to_screen = sum(one.dest == "-" for one in targets)
        if to_screen > 1:
            raise Refusal("only one output can go to standard output: give the others dest=FILE")
        if to_screen and sys.stdout.isatty():
            raise Refusal("an archive is nothing for a terminal: give it dest=FILE, or redirect")
        self._pushed = self._tags if push or any(one.push for one in targets) else []
        if (push or any(one.push for one in targets)) and not self._tags:
            raise Refusal("what is pushed needs a name: give it one with -t REGISTRY/NAME")
        stays = stays or bool(self._tags) or len(self._targets) < max(1, len(targets))
        self._passing = "" if stays else f"{PASSING}:{os.urandom(8).hex()}"

    @property
    def names(self) -> list[str]:
        """What the daemon is to call the image."""
        return [self._passing] if self._passing else self._tags

    @property
    def takes_stdout(self) -> bool:
        return any(one.dest == "-" for one in self._targets)

    def fetch(self, client: Client, id: str) -> None:
        for one in self._targets:
            if one.kind in ("oci", "docker"):
                save(client.stream("/images/get", names=self._tags or [id]), _file(one.dest))
            elif one.kind == "tar":
                save(client.stream(f"/swarmd/images/{segment(id)}/rootfs"), _file(one.dest))
            else:
                _unpack(client.stream(f"/swarmd/images/{segment(id)}/rootfs"), one.dest)

    def push(self, client: Client, *, quiet: bool) -> None:
        """To the registries that the image's names tell of."""
        from swarmd.swarmctl.commands.registry import send
        from swarmd.swarmctl.references import tagged

        for name in self._pushed:
            send(client, tagged(name), quiet=quiet, out=sys.stderr)

    def forget(self, client: Client) -> None:
        """Take away the name that was only for this, and the image unless it has another."""
        if self._passing:
            try:
                client.delete(f"/images/{path_of(self._passing)}")
            except Refusal as refusal:
                if refusal.status != 404:  # there is none when the build has failed
                    raise


def check(path: str) -> None:
    """Refusal for a file that can't be written, before the build that it is to tell of."""
    place = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(place):
        raise Refusal(
            f"{path} is a directory: name a file" if os.path.isdir(path) else f"there is no directory {place}"
        )


def write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as problem:
        raise Refusal(f"{path}: {(problem.strerror or str(problem)).lower()}") from None


def metadata(client: Client, built: Built) -> dict[str, Any]:
    """What --metadata-file tells, under the names that Docker's buildx has for it."""
    descriptor = client.get(f"/images/{segment(built.id)}/json")["Descriptor"]
    found = {"containerimage.digest": built.id, "containerimage.descriptor": descriptor}
    return {**found, "image.name": ",".join(built.names)} if built.names else found


def _file(dest: str) -> str:
    return "" if dest == "-" else dest


def _unpack(response: Response, dest: str) -> None:
    from pathlib import Path

    from swarmd.swarmctl.archive import unpack

    try:
        os.makedirs(dest, exist_ok=True)
    except OSError as problem:
        raise Refusal(f"{dest}: {(problem.strerror or str(problem)).lower()}") from None
    with response:
        unpack(response, Path(dest), keep_owners=os.geteuid() == 0, whole=True)
