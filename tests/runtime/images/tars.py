"""Builds archives for tests, entry by entry."""

import hashlib
import io
import json
import os
import tarfile
from typing import Any


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.uid, info.gid, info.mtime = os.getuid(), os.getgid(), 1_000_000
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration(*layers: bytes, **config: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "config": config, "rootfs": rootfs}).encode()


def docker_save(refs: list[str], *layers: bytes, **config: Any) -> bytes:
    """As `docker save` wrote it up to version 24."""
    document = configuration(*layers, **config)
    name = f"{digest(document).removeprefix('sha256:')}.json"
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": name, "RepoTags": refs, "Layers": paths}]).encode()
    parts = [entry(path, layer) for path, layer in zip(paths, layers, strict=True)]
    return tar(entry(name, document), *parts, entry("manifest.json", manifest))


def oci_layout(ref: str, config: bytes, *layers: bytes) -> bytes:
    """layers: as stored, compressed or not."""
    described = [{"digest": digest(layer), "size": len(layer)} for layer in layers]
    manifest = json.dumps({"config": {"digest": digest(config), "size": len(config)}, "layers": described}).encode()
    annotations = {"io.containerd.image.name": ref}
    index = {"manifests": [{"digest": digest(manifest), "size": len(manifest), "annotations": annotations}]}
    blobs = [entry(f"blobs/sha256/{digest(blob)[7:]}", blob) for blob in (config, manifest, *layers)]
    return tar(entry("index.json", json.dumps(index).encode()), *blobs)
