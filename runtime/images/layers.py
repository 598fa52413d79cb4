"""Layers ready for overlayfs, by their diff id: the digest of the uncompressed tar.

    layers/<hexadecimal digits>/tree/   the files, whiteouts as overlayfs wants them
    layers/<hexadecimal digits>/size    of the files, in bytes

A layer is moved into its place when it is whole and on the disk, so one that is seen can be used.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.blobs import Blobs
from swarmd.runtime.images.manifests import check_digest
from swarmd.runtime.images.unpacking.removal import remove


class Layers:
    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._directory = root / "layers"
        self._directory.mkdir(exist_ok=True)
        self._temporary = blobs.temporary
        self._sizes: dict[str, int] = {}

    def tree(self, diff_id: str) -> Path:
        return self._place(diff_id) / "tree"

    def has(self, diff_id: str) -> bool:
        """Whether it is here with both its parts: one that has lost a part is to come again."""
        place = self._place(diff_id)
        return _size(place) is not None and (place / "tree").is_dir()

    def size(self, diff_id: str) -> int:
        """Bytes of the layer's files; 0 for one that is not here."""
        if diff_id not in self._sizes and (found := _size(self._place(diff_id))) is not None:
            self._sizes[diff_id] = found
        return self._sizes.get(diff_id, 0)

    def prepare(self) -> Path:
        """A place to make a layer in: put its files into `tree` in there, then adopt it or remove it."""
        making = self._temporary()
        (making / "tree").mkdir(parents=True)
        (making / "tree").chmod(0o755)
        return making

    def describe(self, making: Path, size: int) -> None:
        (making / "size").write_text(str(size))

    def adopt(self, making: Path, diff_id: str) -> None:
        """Show a layer that is described; does nothing when there is one already."""
        if self.has(diff_id):
            remove(making)
            return
        damaged = self.doom(diff_id)
        making.rename(self._place(diff_id))
        if damaged:
            remove(damaged)

    def diff_ids(self) -> Iterator[str]:
        for place in self._directory.iterdir():
            yield f"{'sha256' if len(place.name) == 64 else 'sha512'}:{place.name}"

    def doom(self, diff_id: str) -> Path | None:
        """Take a layer out of its place; the caller removes what is returned."""
        doomed = self._temporary()
        self._sizes.pop(diff_id, None)
        with contextlib.suppress(FileNotFoundError):
            self._place(diff_id).rename(doomed)
            return doomed
        return None

    def _place(self, diff_id: str) -> Path:
        try:
            return self._directory / check_digest(diff_id)
        except ValueError as error:
            raise Invalid(str(error)) from None


def _size(place: Path) -> int | None:
    try:
        return int((place / "size").read_text())
    except (OSError, ValueError):
        return None
