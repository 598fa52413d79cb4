"""A layer comes out as its tar says, and nothing outside of it is touched whatever the tar says."""

import gzip
import os
import stat
import tarfile
from pathlib import Path

import pytest

from swarmd.runtime.errors import Invalid
from swarmd.runtime.images import archive
from tests.runtime.images.tars import digest, directory, entry, hardlink, symlink, tar

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("untouched")
    layer = tmp_path / "layer"
    layer.mkdir()
    return layer


def unpack(layer: Path, data: bytes) -> tuple[str, int]:
    file = layer.parent / "archive"
    file.write_bytes(data)
    return archive.unpack(file, layer)


def test_files_come_out_with_their_attributes(layer: Path) -> None:
    data = tar(
        directory("bin", mode=0o750, mtime=5_000),
        entry("bin/tool", b"content", mode=0o4755, mtime=7_000),
        hardlink("bin/same", "bin/tool"),
        symlink("tool", "bin/tool"),
        entry("pipe", type=tarfile.FIFOTYPE),
        entry("deep/below/file", b"x"),
        entry("caf\udce9", b"not utf-8"),
    )
    assert unpack(layer, data) == (digest(data), len(data))
    tool = layer / "bin" / "tool"
    assert tool.read_bytes() == b"content"
    assert (stat.S_IMODE(tool.stat().st_mode), tool.stat().st_mtime) == (0o4755, 7_000)
    assert (stat.S_IMODE(tool.parent.stat().st_mode), tool.parent.stat().st_mtime) == (0o750, 5_000)
    assert os.path.samestat(tool.stat(), (layer / "bin" / "same").stat())
    assert (layer / "tool").readlink() == Path("bin/tool")
    assert stat.S_ISFIFO((layer / "pipe").stat().st_mode)
    assert (layer / "deep/below/file").read_bytes() == b"x"
    assert any(os.fsencode(file.name) == b"caf\xe9" for file in layer.iterdir())


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compression_is_recognised_and_the_digest_is_of_the_plain_tar(layer: Path, mode: str) -> None:
    entries = [entry("file", b"x")]
    assert unpack(layer, tar(*entries, mode=mode))[0] == digest(tar(*entries))


def test_later_entries_replace_earlier_ones(layer: Path) -> None:
    unpack(
        layer,
        tar(
            directory("a"),
            entry("a/inside", b"1"),
            entry("a", b"now a file"),
            symlink("link", "../outside/precious"),
            entry("link", b"now a file"),
            entry("b", b"1"),
            directory("b"),
            entry("b/inside", b"2"),
        ),
    )
    assert (layer / "a").read_bytes() == b"now a file"
    assert not (layer / "link").is_symlink()
    assert (layer / "b/inside").read_bytes() == b"2"


def test_whiteouts_become_those_of_overlayfs(layer: Path) -> None:
    unpack(layer, tar(directory("etc"), entry("etc/.wh.gone")))
    gone = (layer / "etc/gone").stat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0


@pytest.mark.root
def test_opaque_directories_and_capabilities_are_extended_attributes(layer: Path) -> None:
    value = CAPABILITY.decode("utf-8", "surrogateescape")
    ping = entry("ping", b"x", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": value})
    unpack(layer, tar(directory("var"), entry("var/.wh..wh..opq"), ping))
    assert os.getxattr(layer / "var", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(layer / "ping", "security.capability") == CAPABILITY


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../outside/precious", b"!")],
        [entry("a/../../outside/precious", b"!")],
        [hardlink("mine", "../outside/precious"), entry("mine", b"!")],
        [symlink("out", "../outside"), hardlink("mine", "out/precious")],
    ],
)
def test_entries_that_lead_out_are_refused(layer: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(Invalid, match="archive entry"):
        unpack(layer, tar(*entries))
    assert (layer.parent / "outside/precious").read_text() == "untouched"


@pytest.mark.parametrize(
    "entries",
    [
        [entry("/outside/precious", b"!")],
        [directory("outside"), symlink("out", "../outside"), entry("out/precious", b"!")],
        [directory("outside"), symlink("out", "/outside"), entry("out/precious", b"!")],
        [symlink("precious", "../outside/precious"), entry("precious", b"!")],
    ],
)
def test_absolute_names_and_links_stay_inside(layer: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    unpack(layer, tar(*entries))
    assert (layer.parent / "outside/precious").read_text() == "untouched"


def test_a_link_that_leads_nowhere_inside_is_no_directory(layer: Path) -> None:
    with pytest.raises(Invalid, match="leads nowhere"):
        unpack(layer, tar(symlink("out", "../outside"), entry("out/precious", b"!")))


@pytest.mark.parametrize(
    "data",
    [
        b"this is no archive" * 100,
        tar(entry("file", b"x" * 10_000))[:5_000],
        gzip.compress(tar(entry("file", os.urandom(10_000))))[:-2_000],
        b"\x28\xb5\x2f\xfd" + b"zstd",
    ],
)
def test_what_is_no_whole_archive_is_refused(layer: Path, data: bytes) -> None:
    with pytest.raises(Invalid):
        unpack(layer, data)
