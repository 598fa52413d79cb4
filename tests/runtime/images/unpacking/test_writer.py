"""A layer comes out as its tar says, and nothing outside of it is touched whatever the tar says."""

import contextlib
import itertools
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking import writer
from swarmd.runtime.images.unpacking.tar import Reader
from tests.runtime.images.tars import directory, entry, hardlink, symlink, tar

pytestmark = pytest.mark.root  # makes device nodes, and gives files away

CAPABILITY = "\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
OPAQUE = "trusted.overlay.opaque"
Made = tuple[tarfile.TarInfo, bytes]


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("untouched")
    layer = tmp_path / "layer"
    layer.mkdir()
    return layer


def unpack(layer: Path, *entries: Made) -> int:
    return writer.unpack(Reader(iter([tar(*entries)])), str(layer))


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"


def test_files_have_their_attributes(layer: Path) -> None:
    capability = {"SCHILY.xattr.security.capability": CAPABILITY, "SCHILY.xattr.user.a": "b"}
    labels = {"SCHILY.xattr.security.selinux": "label", "SCHILY.xattr.trusted.overlay.opaque": "y"}
    unpack(
        layer,
        directory("bin", mode=0o1750, mtime=5000.25, uid=3, gid=4),
        entry("bin/tool", b"content", mode=0o6755, mtime=7000.5, uid=1000, gid=1001),
        entry("bin/ping", b"x", mode=0o755, uid=5, pax_headers=capability | labels),
        entry("bin/root", b"y", mode=0o4711, uid=0, gid=0),
        hardlink("bin/same", "bin/tool"),
        symlink("tool", "../../bin/tool"),
        entry("pipe", type=tarfile.FIFOTYPE, mode=0o640),
        entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, uid=7),
        entry("deep/below/file", b"x"),
        entry("caf\udce9", b"not utf-8"),
    )
    tool = (layer / "bin" / "tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_gid, tool.st_nlink) == (0o6755, 1000, 1001, 2)
    assert tool.st_mtime_ns == 7_000_500_000_000
    above = (layer / "bin").stat()
    assert (stat.S_IMODE(above.st_mode), above.st_uid, above.st_gid) == (0o1750, 3, 4)
    assert above.st_mtime_ns == 5_000_250_000_000
    ping = layer / "bin" / "ping"
    assert {name: os.getxattr(ping, name) for name in os.listxattr(ping)} == {
        "security.capability": CAPABILITY.encode(),
        "user.a": b"b",
    }
    assert stat.S_IMODE((layer / "bin" / "root").stat().st_mode) == 0o4711
    assert (layer / "tool").readlink() == Path("../../bin/tool")
    null = (layer / "null").lstat()
    assert (null.st_rdev, stat.S_IMODE(null.st_mode), null.st_uid) == (os.makedev(1, 3), 0o666, 7)
    assert stat.S_ISFIFO((layer / "pipe").lstat().st_mode)
    assert stat.S_IMODE((layer / "deep").stat().st_mode) == 0o755
    assert any(os.fsencode(file.name) == b"caf\xe9" for file in layer.iterdir())


def test_a_directory_that_gives_its_group_does_not_give_it_here(layer: Path) -> None:
    unpack(layer, directory("d", mode=0o2775, gid=50), entry("d/f", b"x", gid=0), directory("d/in", gid=0, mode=0o755))
    assert (layer / "d/f").stat().st_gid == (layer / "d/in").stat().st_gid == 0
    assert stat.S_IMODE((layer / "d/in").stat().st_mode) == 0o755
    assert stat.S_IMODE((layer / "d").stat().st_mode) == 0o2775


def test_the_root_has_attributes_too(layer: Path) -> None:
    unpack(layer, directory("./", mode=0o711, uid=9, mtime=77), entry("./f", b"x"))
    found = layer.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime) == (0o711, 9, 77)


def test_later_entries_replace_earlier_ones_and_the_size_is_of_what_is_left(layer: Path) -> None:
    size = unpack(
        layer,
        entry("f", b"12345"),
        entry("f", b"123"),
        directory("d"),
        entry("d/in/f", b"1" * 100),
        entry("d", b"now a file"),
        entry("g", b"1234"),
        directory("g", mtime=9),
        symlink("s", "d"),
        entry("s", b"ab"),
        entry("h", b"one"),
        hardlink("i", "h"),
        hardlink("i", "h"),
        hardlink("h", "h"),
    )
    assert ((layer / "f").read_bytes(), (layer / "d").read_bytes()) == (b"123", b"now a file")
    assert ((layer / "g").stat().st_mtime, (layer / "s").read_bytes()) == (9, b"ab")
    assert (layer / "h").read_bytes() == (layer / "i").read_bytes() == b"one"
    assert size == 3 + 10 + 2 + 3


def test_whiteouts_hide_what_is_below_and_never_what_the_layer_has(layer: Path) -> None:
    unpack(
        layer,
        directory("etc"),
        entry("etc/.wh.gone", b""),
        entry("etc/.wh..wh..opq", b""),
        directory("made"),
        entry("made/f", b"x"),
        entry(".wh.made", b""),
        entry(".wh.again", b""),
        directory("again", mtime=3),
        entry(".wh.way", b""),
        entry("way/deep/f", b"y"),
        entry("kept", b"z"),
        entry(".wh.kept", b""),
        entry(".wh.file", b""),
        entry("file", b"new"),
        directory(".wh..wh.plnk"),
        entry(".wh..wh.aufs", b""),
    )
    assert is_whiteout(layer / "etc/gone") and is_opaque(layer / "etc")
    for path, held in (("made", "f"), ("way", "deep")):
        assert is_opaque(layer / path) and (layer / path / held).exists()
    assert is_opaque(layer / "again") and (layer / "again").stat().st_mtime == 3
    assert not is_opaque(layer / "way/deep")
    assert ((layer / "kept").read_bytes(), (layer / "file").read_bytes()) == (b"z", b"new")
    assert {path.name for path in layer.iterdir()} == {"etc", "made", "again", "way", "kept", "file"}


def test_sparse_files_stay_sparse(layer: Path) -> None:
    with (layer.parent / "sparse").open("wb") as file:
        file.seek(50_000_000)
        file.write(b"end")
        file.truncate(100_000_000)
    data = subprocess.run(["tar", "-cS", "sparse"], cwd=layer.parent, capture_output=True, check=True).stdout
    assert writer.unpack(Reader(iter([data])), str(layer)) == 100_000_000
    assert (layer / "sparse").read_bytes() == (layer.parent / "sparse").read_bytes()
    assert (layer / "sparse").stat().st_blocks * 512 < 1_000_000


def test_symlinks_lead_around_inside_as_in_the_container(layer: Path) -> None:
    unpack(
        layer,
        directory("usr/lib"),
        symlink("lib", "/usr/lib"),
        entry("lib/a", b"a"),
        symlink("up", "../../../usr"),
        entry("up/b", b"b"),
    )
    assert ((layer / "usr/lib/a").read_bytes(), (layer / "usr/b").read_bytes()) == (b"a", b"b")


HOSTILE: dict[str, tuple[list[Made], str]] = {
    "up": ([entry("../outside/new", b"x")], "leads out"),
    "up in the middle": ([entry("a/../../outside/precious", b"x")], "leads out"),
    "link target up": ([hardlink("a", "../outside/precious")], "leads out"),
    "hard link outside": ([hardlink("a", "/outside/precious")], "not in this layer"),
    "hard link by a symlink": ([symlink("s", "../outside"), hardlink("a", "s/precious")], "not in this layer"),
    "hard link to a directory": ([directory("d"), hardlink("a", "d")], "is a directory"),
    "hard link to nothing": ([hardlink("a", "b")], "not in this layer"),
    "a file as the root": ([entry("./", b"x", type=tarfile.REGTYPE)], "replace the root"),
    "a symlink as the root": ([symlink(".", "../outside")], "replace the root"),
    "below a file": ([entry("f", b""), entry("f/in", b"")], "no directory"),
    "below a symlink to itself": ([symlink("s", "s"), entry("s/in", b"")], "can't be made"),
    "below a symlink to nothing": ([symlink("s", "/outside"), entry("s/in", b"")], "leads to no directory"),
    "whiteout of nothing": ([entry(".wh.", b"")], "whiteout of no name"),
    "whiteout of the directory": ([entry("d/.wh..", b"")], "whiteout of no name"),
    "whiteout of the one above": ([entry("d/.wh...", b"")], "whiteout of no name"),
    "whiteout with a slash": ([entry(".wh./../../outside/precious", b"")], "leads out"),
    "device that hides": ([entry("f", type=tarfile.CHRTYPE)], "device 0:0"),
    "nobody at all": ([entry("f", b"", uid=2**32 - 1)], "whom no system has"),
    "long name": ([entry("n" * 300, b"")], "File name too long"),
    "long path": ([entry("d/" * 3000 + "f", b"")], "File name too long"),
    "long target": ([symlink("s", "t" * 5000)], "File name too long"),
    "no target": ([symlink("s", "")], "can't be made"),
    "time without end": ([entry("f", b"", pax_headers={"mtime": "9" * 19})], "can't be made"),
    "huge and sparse": (
        [entry("f", b"", pax_headers={"GNU.sparse.map": "", "GNU.sparse.size": "9" * 18})],
        "can't be made",
    ),
    "unknown kind": ([entry("f", b"", type=b"Z")], "unknown type"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_and_touch_nothing_outside(layer: Path, case: str) -> None:
    before = canary(layer)
    entries, says = HOSTILE[case]
    with pytest.raises(Invalid, match=says) as caught:
        unpack(layer, *entries)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    assert canary(layer) == before


@pytest.mark.parametrize(
    "entries",
    [
        [symlink("s", "../outside"), entry("s", b"replaced")],
        [symlink("s", "../outside/precious"), entry("s", b"replaced", mode=0o4755)],
        [symlink("s", "/"), entry("s/f", b"inside")],
        [directory("outside"), symlink("s", "../outside"), entry("s/precious", b"inside")],
        [directory("d"), symlink("d", "../outside"), directory("d"), entry("d/precious", b"inside")],
        [directory("d/e"), entry("d/e/f", b""), symlink("d", "../outside"), entry("d", b"")],
        [symlink("s", "../outside"), directory("s", mode=0o700, mtime=1, uid=4)],
        [symlink("s", "../outside/precious"), hardlink("h", "s"), entry("h", b"x")],
        [entry("s/../f".replace("..", "."), b""), symlink("f", "../outside"), entry(".wh.f", b"")],
        [entry("/outside/precious", b"inside"), entry("//etc//x", b"")],
    ],
)
def test_what_may_be_done_is_done_inside(layer: Path, entries: list[Made]) -> None:
    before = canary(layer)
    unpack(layer, *entries)
    assert canary(layer) == before


def test_trees_deeper_than_a_stack_are_made_and_replaced(layer: Path) -> None:
    unpack(layer, entry("d/" * 1500 + "f", b"x"), entry("d", b"now a file"))
    assert (layer / "d").read_bytes() == b"now a file"


def canary(layer: Path) -> list[tuple[object, ...]]:
    """All of what is beside the layer."""
    found = []
    for path in sorted(layer.parent.rglob("*")):
        if layer not in (path, *path.parents):
            about = path.lstat()
            held = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
            found.append((str(path), about.st_mode, about.st_uid, about.st_nlink, about.st_mtime_ns, held))
    return found


paths = st.lists(
    st.sampled_from(["a", "b", "c", "..", ".", "", "outside", "precious", ".wh.a", ".wh..", ".wh..wh..opq"]), max_size=4
).map("/".join) | st.sampled_from(["/outside", "../outside", "a/../outside", "../outside/precious", "n" * 300])
kinds = st.sampled_from([bytes([kind]) for kind in b"0123456"])


@st.composite
def attacks(draw: st.DrawFn) -> list[Made]:
    numbers = itertools.count()
    made = []
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(kinds)
        content = b"%d" % next(numbers) if kind == tarfile.REGTYPE else b""
        mode, device = draw(st.sampled_from([0o644, 0o6777, 0])), draw(st.integers(0, 3))
        fields = {"type": kind, "linkname": draw(paths), "mode": mode, "devmajor": device, "devminor": device}
        made.append(entry(draw(paths), content, **fields))
    return made


@given(attacks())
@settings(max_examples=400, deadline=None)
def test_no_archive_changes_anything_outside(entries: list[Made]) -> None:
    with TemporaryDirectory() as place:
        layer = Path(place) / "layer"
        (Path(place) / "outside").mkdir()
        (Path(place) / "outside" / "precious").write_text("untouched")
        layer.mkdir()
        before, descriptors = canary(layer), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with contextlib.suppress(Invalid):
            unpack(layer, *entries)
        assert canary(layer) == before
        assert len(os.listdir("/proc/self/fd")) <= descriptors  # noqa: PTH208
