"""What the benchmarks of images move: layers made of this machine's own files, in a registry that everybody reaches."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from tests.benchmarks.peers import until

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_SMALL = 1 << 20  # bytes: what a root of a distribution is mostly made of


@contextmanager
def in_memory(place: Path) -> Iterator[Path]:
    """A tmpfs, so that a noisy disk is in no figure."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=16g", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


class Registry:
    """Debian's docker-registry without TLS at an address that the hosts reach."""

    def __init__(self, directory: Path, address: str, port: int) -> None:
        self.host = f"{address}:{port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Empty, whatever there was before."""
        self.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        config = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self._directory / "storage")}},
            "http": {"addr": self.host},
        }
        path = self._directory / "config.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", str(path)], stdout=log, stderr=log)
        until(self._answers, f"registry at {self.host}", 10)

    def _answers(self) -> bool:
        try:
            return bool(self._ask("GET", "/v2/").status == 200)
        except OSError:
            return False

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def publish(self, name: str, layers: list[bytes]) -> str:
        """An image of these gzipped layers; its reference."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer)) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._upload(name, json.dumps(config).encode(), _CONFIG),
            "layers": [self._upload(name, layer, _LAYER) for layer in layers],
        }
        self._ask("PUT", f"/v2/{name}/manifests/latest", json.dumps(manifest).encode(), _MANIFEST)
        return f"{self.host}/{name}:latest"

    def has(self, name: str) -> bool:
        """Whether the manifest is there, which the registry takes only when it has the layers."""
        try:
            return bool(self._ask("GET", f"/v2/{name}/manifests/latest").status == 200)
        except OSError:
            return False

    def _upload(self, name: str, blob: bytes, kind: str) -> dict[str, object]:
        place = self._ask("POST", f"/v2/{name}/blobs/uploads/", b"").headers["Location"]
        self._ask("PUT", f"{place}&digest={_digest(blob)}", blob, "application/octet-stream")
        return {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}

    def _ask(self, method: str, place: str, body: bytes | None = None, kind: str = ""):  # type: ignore[no-untyped-def]
        url = place if place.startswith("http") else f"http://{self.host}{place}"
        # Without the first the registry turns a manifest into one of the oldest form, or can't.
        headers = {"Accept": _MANIFEST} | ({"Content-Type": kind} if kind else {})
        return urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=120)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _files(tops: tuple[str, ...]) -> Iterator[Path]:
    for top in tops:
        for directory, below, names in os.walk(top):
            below.sort()
            for name in sorted(names):
                path = Path(directory, name)
                if path.is_file() or path.is_symlink():
                    yield path


def _packed(paths: Iterator[Path], most: int) -> bytes:
    """A gzipped tar of files in order, until they have so many bytes."""
    out = BytesIO()
    total = 0
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in paths:
            archive.add(path, recursive=False)
            total += path.lstat().st_size
            if total >= most:
                break
    return subprocess.run(["gzip", "-1"], input=out.getvalue(), stdout=subprocess.PIPE, check=True).stdout


def root_of_small_files() -> bytes:
    """About 250 MB like what debootstrap makes: documentation, locales, modules, programs."""
    tops = ("/etc", "/usr/share", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/bin", "/usr/lib")
    return _packed((path for path in _files(tops) if path.lstat().st_size < _SMALL), 250 << 20)


def large_files() -> bytes:
    """About 200 MB gzipped, of programs and libraries of more than a megabyte."""
    tops = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec", "/usr/local")
    return _packed((path for path in _files(tops) if path.lstat().st_size >= _SMALL), 480 << 20)


def noise(size: int) -> bytes:
    """A gzipped layer of so many bytes that can't be compressed."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("noise")
        entry.size = size
        archive.addfile(entry, BytesIO(os.urandom(size)))
    return gzip.compress(out.getvalue(), 0)


def context(directory: Path, count: int) -> Path:
    """A build's context: so many files of about 4 KB in directories of fifty."""
    for number in range(count):
        path = directory / "tree" / f"part{number // 50}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number} of the files of a context\n" * 130)
    return directory
