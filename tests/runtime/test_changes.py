"""What is listed as changed, from directories as an overlay leaves them."""

import os
from pathlib import Path

import pytest

from swarmd.runtime.changes import ADDED, DELETED, MODIFIED, changes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes whiteouts and trusted attributes")]


def tree(top: Path, *entries: str) -> Path:
    """Entries: "d/" a directory, "d/!" an opaque one, "-f" a whiteout, "l>x" a link, anything else a file."""
    top.mkdir()
    for entry in entries:
        path, _, link = entry.partition(">")
        place = top / path.rstrip("!/").replace("-", "")
        place.parent.mkdir(parents=True, exist_ok=True)
        if link:
            place.symlink_to(link)
        elif entry.rpartition("/")[2].startswith("-"):
            os.mknod(place, 0o020000, 0)
        elif entry.endswith(("/", "!")):
            place.mkdir(exist_ok=True)
            if entry.endswith("!"):
                os.setxattr(place, "trusted.overlay.opaque", b"y")
        else:
            place.write_text("")
    return top


NOTHING: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        ((NOTHING,), NOTHING, []),
        ((("f",),), ("f",), [("/f", MODIFIED)]),
        ((NOTHING,), ("d/e/f",), [("/d", ADDED), ("/d/e", ADDED), ("/d/e/f", ADDED)]),
        ((("d/f",),), ("d/g",), [("/d", MODIFIED), ("/d/g", ADDED)]),
        ((("d/f",),), ("d/-f",), [("/d", MODIFIED), ("/d/f", DELETED)]),
        ((("d/f",),), ("-d",), [("/d", DELETED)]),
        # A directory removed and made again hides what was there.
        ((("d/f", "d/g"),), ("d/!", "d/g"), [("/d", MODIFIED), ("/d/f", DELETED), ("/d/g", ADDED)]),
        # One in place of a file, a file or a link in place of one.
        ((("d",),), ("d/f",), [("/d", MODIFIED), ("/d/f", ADDED)]),
        ((("d/f",),), ("d",), [("/d", MODIFIED)]),
        ((("d/f", "e/f"),), ("e>d",), [("/e", MODIFIED)]),
        # Of several layers the topmost that has it counts, as does one that took it away.
        ((("f",), ("-f",)), ("f",), [("/f", ADDED)]),
        ((("f",), ("-f",), ("f",)), ("f",), [("/f", MODIFIED)]),
        ((("d/f",), ("d/!", "d/g")), ("d/f", "d/g"), [("/d", MODIFIED), ("/d/f", ADDED), ("/d/g", MODIFIED)]),
        ((("d/f",), ("-d",), ("d/g",)), ("d/f",), [("/d", MODIFIED), ("/d/f", ADDED)]),
        ((("d/f",), ("d",)), ("d/f",), [("/d", MODIFIED), ("/d/f", ADDED)]),
        # A link of a lower layer is no directory: what is in the one that it leads to was not there.
        ((("d>/etc",),), ("d/passwd",), [("/d", MODIFIED), ("/d/passwd", ADDED)]),
        # Places that we made to mount on are no change, nor is the directory that they are in.
        ((("etc/",),), ("etc/hosts", "etc/resolv.conf", "etc/hostname", "dev/", "proc/", "sys/"), []),
        ((("etc/",),), ("etc/hosts", "etc/f"), [("/etc", MODIFIED), ("/etc/f", ADDED)]),
        # A directory whose mode or owner was changed.
        ((("d/",),), ("d/",), [("/d", MODIFIED)]),
        # A name that only begins like one of those.
        ((("etc/",),), ("etc/hosts", "etcetera"), [("/etcetera", ADDED)]),
    ],
)  # fmt: skip
def test_changes(
    tmp_path: Path, lower: tuple[tuple[str, ...], ...], upper: tuple[str, ...], expected: list[tuple[str, int]]
) -> None:
    layers = [tree(tmp_path / str(number), *entries) for number, entries in enumerate(lower)]
    assert [tuple(change) for change in changes(tree(tmp_path / "upper", *upper), layers)] == expected
