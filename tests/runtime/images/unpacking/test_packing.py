"""A packed directory comes out again as it was, from us and from others, and is the same bytes each time."""

import gzip
import hashlib
import io
import os
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.unpacking import packing, writer
from swarmd.runtime.images.unpacking.jobs import PackJob
from swarmd.runtime.images.unpacking.tar import Reader

pytestmark = pytest.mark.root  # makes device nodes, and gives files away

OPAQUE = "trusted.overlay.opaque"


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """One of everything."""
    upper = tmp_path / "upper"
    (upper / "etc" / "deep").mkdir(parents=True)
    (upper / "etc" / "deep" / "file").write_bytes(b"content" * 100)
    (upper / "etc" / "empty").touch()
    (upper / "etc" / "big").write_bytes(os.urandom(700_000))
    (upper / "etc" / "same").hardlink_to(upper / "etc" / "big")
    (upper / "link").symlink_to("/etc/deep")
    (upper / "long" / ("n" * 200)).mkdir(parents=True)
    (upper / "long" / ("n" * 200) / "täxt").write_text("x")
    (upper / "long" / "sym").symlink_to("t" * 300)
    (Path(os.fsdecode(os.fsencode(upper) + b"/caf\xe9"))).write_text("x")
    (Path(os.fsdecode(os.fsencode(upper) + b"/" + b"\xff" * 120))).write_text("x")
    os.mkfifo(upper / "pipe")
    os.mknod(upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(upper / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 300_000))
    os.mknod(upper / "etc" / "gone", stat.S_IFCHR, 0)
    os.setxattr(upper / "etc" / "deep", OPAQUE, b"y")
    os.setxattr(upper / "etc" / "empty", "user.a", b"\0=\n\xff")
    os.setxattr(upper / "etc" / "empty", "trusted.mine", b"host")
    os.chown(upper / "etc" / "empty", 3_000_000, 4_000_000)
    (upper / "etc" / "empty").chmod(0o4755)
    os.setxattr(upper / "etc" / "big", "security.capability", bytes.fromhex("01000002" + "00040000" + "00" * 12))
    os.utime(upper / "etc" / "big", ns=(0, 1_234_567_890))
    os.utime(upper / "etc" / "deep" / "file", ns=(0, -1_500_000_000))
    return upper


def pack(directory: Path, **fields: Any) -> tuple[bytes, bytes]:
    """The blob, and the tar in it."""
    blob = directory.parent / "blob"
    done = packing.pack(PackJob(directory=os.fsencode(directory), blob=os.fsencode(blob), **fields))
    data = blob.read_bytes()
    assert (done.digest, done.size) == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    compression = fields.get("compression", "gzip")
    plain = data
    if compression == "gzip":
        plain = gzip.decompress(data)
    elif compression == "zstd":
        plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    assert done.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    return data, plain


def names(plain: bytes) -> list[str]:
    return [entry.name for entry in Reader(iter([plain]))]


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        about = path.lstat()
        kind = stat.S_IFMT(about.st_mode)
        held = (
            path.read_bytes() if stat.S_ISREG(kind) else str(path.readlink()) if stat.S_ISLNK(kind) else about.st_rdev
        )
        kept = os.listxattr(path, follow_symlinks=False)
        xattrs = {name: os.getxattr(path, name) for name in kept if name != "trusted.mine"}
        whiteout = stat.S_ISCHR(kind) and not about.st_rdev
        links = 0 if stat.S_ISDIR(kind) else about.st_nlink
        owner = (0 if whiteout else about.st_mtime_ns, about.st_mode, about.st_uid, about.st_gid, links)
        found[str(path.relative_to(top))] = (None if whiteout else owner, held, xattrs)
    return found


@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_what_was_packed_comes_out_as_it_was(upper: Path, compression: str) -> None:
    _, plain = pack(upper, compression=compression)
    out = upper.parent / "out"
    out.mkdir()
    writer.unpack(Reader(iter([plain])), str(out))
    assert tree(out) == tree(upper)


def test_gnu_tar_and_tarfile_read_it(upper: Path) -> None:
    os.utime(upper / "etc" / "deep" / "file", ns=(0, 1_500_000_000))  # GNU tar is half a second off before 1970
    _, plain = pack(upper)
    out = upper.parent / "out"
    out.mkdir()
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpC", str(out)]
    subprocess.run(["tar", *options], input=plain, capture_output=True, check=True)
    (out / "etc/.wh.gone").unlink()
    (out / "etc/deep/.wh..wh..opq").unlink()
    times = {path: found for path, found in tree(upper).items() if path != "etc/gone"}
    unpacked = tree(out)
    for changed in ("etc", "etc/deep"):  # by what has just been removed, or marked for overlayfs alone
        times.pop(changed), unpacked.pop(changed)
    assert unpacked == times
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert len(archive.getmembers()) == len(names(plain))


def test_the_same_tree_is_the_same_bytes(upper: Path) -> None:
    copy = upper.parent / "copy"
    subprocess.run(["cp", "-a", str(upper), str(copy)], check=True)
    for compression in ("gzip", "zstd", ""):
        assert pack(upper, compression=compression) == pack(copy, compression=compression)


def test_names_are_sorted_and_whiteouts_are_those_of_the_specification(upper: Path) -> None:
    found = names(pack(upper)[1])
    assert found[found.index("etc/") :][:8] == [
        "etc/",
        "etc/big",
        "etc/deep/",
        "etc/deep/.wh..wh..opq",
        "etc/deep/file",
        "etc/empty",
        "etc/.wh.gone",
        "etc/same",
    ]
    assert {name.split("/")[0] for name in found} >= {"caf\udce9", "disk", "link", "null", "pipe", "long"}


def test_times_are_clamped(upper: Path) -> None:
    times = [entry.mtime for entry in Reader(iter([pack(upper, clamp=1)[1]]))]
    assert max(times) == 10**9 and min(times) == -1_500_000_000


def test_owners_on_the_disk_may_be_shifted(upper: Path) -> None:
    os.chown(upper / "etc", 100_000, 100_007)
    os.chown(upper / "link", 99_999, 100_000, follow_symlinks=False)
    found = {entry.name: (entry.uid, entry.gid) for entry in Reader(iter([pack(upper, owner_offset=100_000)[1]]))}
    assert (found["etc/"], found["link"], found["etc/empty"]) == ((0, 7), (65534, 0), (2_900_000, 3_900_000))
    assert found["etc/.wh.gone"] == (0, 0)


def test_only_what_was_asked_for_with_what_leads_there(upper: Path) -> None:
    assert names(pack(upper, paths=(b"etc/deep", b"/link"))[1]) == [
        "etc/",
        "etc/deep/",
        "etc/deep/.wh..wh..opq",
        "etc/deep/file",
        "link",
    ]
    with pytest.raises(Invalid, match="'etc/nothing' is to be packed, and is not there"):
        pack(upper, paths=(b"etc/nothing",))


def test_sockets_are_left_out_and_empty_directories_are_layers(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(upper / "socket"))
        assert pack(upper, compression="")[0] == bytes(1024)


def test_trees_deeper_than_a_stack_are_packed(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    place = os.open(tmp_path / "upper", os.O_RDONLY)
    for _ in range(800):
        os.mkdir("d", dir_fd=place)
        place, above = os.open("d", os.O_RDONLY, dir_fd=place), place
        os.close(above)
    os.close(place)
    assert len(names(pack(tmp_path / "upper")[1])) == 800


def test_a_directory_that_refers_to_the_layers_below_is_refused(upper: Path) -> None:
    os.setxattr(upper / "etc", "trusted.overlay.redirect", b"/usr")
    with pytest.raises(Invalid, match="redirect_dir"):
        pack(upper)
