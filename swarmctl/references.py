"""Names of images as users write them: which registry one is of, and its tag."""

from __future__ import annotations

from swarmd.swarmctl.client import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "docker.io"


def split(name: str) -> tuple[str, str]:
    """Repository and tag or digest; '' where it has none."""
    repository, at, digest = name.partition("@")
    if at:
        return split(repository)[0], digest
    repo, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, ""
    if ":" in repo.rpartition("/")[2]:
        raise Refusal(f"image name {name!r} is not valid: the form is [host[:port]/]name[:tag][@digest]")
    return repo, tag


def tagged(name: str) -> str:
    """With the tag that is meant when there is none."""
    return name if split(name)[1] else f"{name}:latest"


def domain(name: str) -> str:
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return HUB if first == "index.docker.io" else first
    return HUB


def in_full(name: str) -> str:
    """With registry and tag: docker.io/library/demo:latest."""
    host, name = domain(name), tagged(name)
    first, _, rest = name.partition("/")
    if host != HUB or first in (HUB, "index.docker.io"):
        name = rest if host == HUB or first == host else name
    return f"{host}/{'library/' if host == HUB and '/' not in name else ''}{name}"


def platform(text: str | None) -> dict[str, Any] | None:
    """A --platform as newer calls of the API want it."""
    if not text:
        return None
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise Refusal(f"platform {text!r}: write it as os/architecture[/variant], like linux/arm64")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))
