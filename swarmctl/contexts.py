"""Contexts: names for daemons, kept as Docker's CLI keeps them, so that either tool's can be used.  See target.py.

Ours are below ~/.swarmd; Docker's, below ~/.docker, are read and never written.  A context is a directory
contexts/meta/SHA256(name) with meta.json, and contexts/tls/SHA256(name)/docker with ca.pem, cert.pem and key.pem.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.dial import Endpoint, tls_in
from swarmd.swarmctl.target import DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")


@dataclass(frozen=True)
class Context:
    """tls: the files by name; empty without TLS."""

    name: str
    host: str
    description: str = ""
    verify: bool = True
    tls: dict[str, bytes] = field(default_factory=dict)
    directory: Path | None = None
    ours: bool = True

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.host, tls_in(str(self.directory), verify=self.verify) if self.tls else None)

    def meta(self) -> dict[str, Any]:
        described = {"Description": self.description} if self.description else {}
        endpoint = {"Host": self.host, "SkipTLSVerify": not self.verify}
        return {"Name": self.name, "Metadata": described, "Endpoints": {"docker": endpoint}}


class Store:
    """directory: ours. Docker's is $DOCKER_CONFIG or ~/.docker."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self._dockers = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")

    def use(self, name: str) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps({"currentContext": name}))

    def all(self) -> list[Context]:
        found: dict[str, Context] = {}
        for root, ours in ((self._dockers, False), (self.directory, True)):
            for path in (root / "contexts" / "meta").glob("*/meta.json"):
                context = _read(root, path, ours)
                found[context.name] = context
        return sorted(found.values(), key=lambda context: context.name)

    def get(self, name: str) -> Context:
        for root, ours in ((self.directory, True), (self._dockers, False)):
            path = _meta(root, name)
            if path.exists():
                return _read(root, path, ours)
        raise Refusal(f"no context {name}: 'swarmctl context ls' lists those there are")

    def put(self, context: Context) -> None:
        if not _NAME.fullmatch(context.name) or context.name == DEFAULT:
            raise Refusal(
                f"{context.name!r} is no name for a context: use letters, digits, '_', '.', '+', '-'; not 'default'"
            )
        path, tls = _meta(self.directory, context.name), _tls(self.directory, context.name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(json.dumps(context.meta()))
        shutil.rmtree(tls, ignore_errors=True)
        for name, content in context.tls.items():
            tls.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(tls / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)

    def has(self, name: str) -> bool:
        """Among ours."""
        return _meta(self.directory, name).exists()

    def remove(self, name: str) -> None:
        if not self.has(name):
            raise Refusal(f"context {name} is not one of swarmctl's: it has none of that name to remove")
        shutil.rmtree(_meta(self.directory, name).parent)
        shutil.rmtree(_tls(self.directory, name).parent, ignore_errors=True)


def _digest(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def _meta(root: Path, name: str) -> Path:
    return root / "contexts" / "meta" / _digest(name) / "meta.json"


def _tls(root: Path, name: str) -> Path:
    return root / "contexts" / "tls" / _digest(name) / "docker"


def _read(root: Path, path: Path, ours: bool) -> Context:
    try:
        meta = json.loads(path.read_text())
        endpoint = meta["Endpoints"]["docker"]
        directory = _tls(root, meta["Name"])
        files = {name: (directory / name).read_bytes() for name in TLS_FILES if (directory / name).exists()}
        return Context(
            meta["Name"],
            endpoint["Host"],
            (meta.get("Metadata") or {}).get("Description", ""),
            not endpoint.get("SkipTLSVerify", False),
            files,
            directory,
            ours,
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Refusal(f"{path} cannot be read as a context: {problem}") from None
