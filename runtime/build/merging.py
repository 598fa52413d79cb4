"""Several layers as one, by overlayfs's own rules: what is above replaces, hides with whiteouts, or makes opaque."""

import os
import shutil
import stat
from pathlib import Path

_OPAQUE = "trusted.overlay.opaque"


def merge(above: Path, below: Path) -> None:
    """Put a layer's tree onto another. Files become links to the same inodes: layers are never written to."""
    for entry in os.scandir(above):
        target = below / entry.name
        found = entry.stat(follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            _remove(target)
            os.link(entry.path, target, follow_symlinks=False)
            continue
        if _is_opaque(entry.path) or target.is_symlink() or not target.is_dir():
            hides = target.is_symlink() or target.exists()
            _remove(target)
            target.mkdir()
            if hides:
                os.setxattr(target, _OPAQUE, b"y")
        merge(Path(entry.path), target)
        shutil.copystat(entry.path, target)
        os.chown(target, found.st_uid, found.st_gid)
        target.chmod(stat.S_IMODE(found.st_mode))
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
