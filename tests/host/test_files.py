"""A container's files from outside: copied in and out, exported, compared; and nothing else of the host's in reach."""

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.runtime.container_files import Found
from swarmd.runtime.errors import Invalid, NotFound, ReadOnly
from swarmd.runtime.model import BindMount, Namespaces, Security, TmpfsMount
from tests.host.engine_host import Host, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups")]


KINDS = {
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
}


def archive(*entries: tuple[str, str, Any]) -> bytes:
    """Of (name, type, content or link)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime, entry.uid, entry.gid = 0o640, 1000, 7, 8
            if kind == "file":
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
                continue
            entry.type = KINDS[kind]
            entry.linkname = content
            tar.addfile(entry)
    return buffer.getvalue()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def put(host: Host, id: str, path: str, *entries: tuple[str, str, Any], **options: bool) -> None:
    await host.engine.file_unpack(id, path, pieces(archive(*entries)), **options)


async def got(host: Host, id: str, path: str) -> tuple[Found, dict[str, tarfile.TarInfo], dict[str, bytes]]:
    stream = host.engine.file_archive(id, path)
    found = await anext(stream)
    assert isinstance(found, Found)
    data = b"".join([piece async for piece in stream if isinstance(piece, bytes)])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = {entry.name: entry for entry in tar}
        contents = {e.name: tar.extractfile(e).read() for e in entries.values() if e.isreg()}  # type: ignore[union-attr]
    return found, entries, contents


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("user", ["", "auto"])
async def test_in_and_out(host: Host, running: bool, user: str) -> None:
    id = await host.make("sleep", "60", namespaces=Namespaces(user=user))
    if running:
        await host.engine.start(id)
    more = (("d/l", "link", "f"), ("d/h", "hard", "d/f"), ("d/p", "fifo", ""))
    await put(host, id, "/tmp", ("d", "dir", ""), ("d/f", "file", b"x" * 70000), *more)
    found, entries, contents = await got(host, id, "/tmp/d")
    assert (found.name, oct(found.mode)) == ("d", oct(0o40640))
    assert set(entries) == {"d", "d/f", "d/h", "d/l", "d/p"}
    assert {contents[name] for name in contents} == {b"x" * 70000}
    one = entries["d/f"] if entries["d/f"].isreg() else entries["d/h"]
    assert (one.uid, one.gid, one.mode, one.mtime) == (7, 8, 0o640, 1000)
    assert entries["d/l"].linkname == "f" and entries["d/p"].isfifo()
    assert entries["d"].mtime == 1000
    inner = await got(host, id, "/tmp/d/.")
    assert set(inner[1]) == {".", "./f", "./h", "./l", "./p"}
    if running:
        seen = await host.engine.exec(id, ["stat", "-c", "%u:%g:%a", "/tmp/d/f"])
        assert seen.stdout == b"7:8:640\n"


async def test_what_is_there_and_what_is_not(host: Host) -> None:
    id = await host.make("true")
    found = await host.engine.file_stat(id, "/bin/sh")
    assert found.link_target == "/bin/busybox"
    with pytest.raises(NotFound, match="could not find the file /nope in container"):
        await host.engine.file_stat(id, "/nope")
    with pytest.raises(NotFound, match="/nope"):
        await put(host, id, "/nope", ("f", "file", b""))
    with pytest.raises(Invalid, match="not a directory"):
        await put(host, id, "/etc/passwd", ("f", "file", b""))


async def test_whose_they_become_and_what_they_replace(host: Host) -> None:
    id = await host.make("true", user="app")
    await put(host, id, "/tmp", ("f", "file", b"1"), own=True)
    assert (await got(host, id, "/tmp/f"))[1]["f"].uid == 1000
    await put(host, id, "/tmp", ("f", "file", b"22"))
    assert (await got(host, id, "/tmp/f"))[2]["f"] == b"22"
    with pytest.raises(Invalid, match="is no directory, and would be replaced by a directory"):
        await put(host, id, "/tmp", ("f", "dir", ""), keep_kinds=True)
    await put(host, id, "/tmp", ("f", "dir", ""), ("f/g", "file", b"3"))
    with pytest.raises(Invalid, match="is a directory"):
        await put(host, id, "/tmp", ("f", "file", b""), keep_kinds=True)


async def test_through_binds_and_file_systems_of_its_own(host: Host) -> None:
    (host.root / "bound").mkdir()
    mounts = (BindMount(source=str(host.root / "bound"), target="/b"), TmpfsMount(target="/t"))
    id = await host.start("sleep", "60", mounts=mounts)
    await put(host, id, "/b", ("f", "file", b"bind"))
    await put(host, id, "/t", ("f", "file", b"tmpfs"))
    assert (host.root / "bound/f").read_bytes() == b"bind"
    assert (await got(host, id, "/t/f"))[2]["f"] == b"tmpfs"
    await host.engine.kill(id)
    await host.engine.wait(id)
    assert (await got(host, id, "/b/f"))[2]["f"] == b"bind"


async def test_what_may_not_be_written(host: Host) -> None:
    id = await host.start("sleep", "60", security=Security(read_only_root=True))
    with pytest.raises(ReadOnly, match="read-only"):
        await put(host, id, "/tmp", ("f", "file", b""))


async def test_a_root_that_is_read_only_is_so_while_nothing_runs(host: Host) -> None:
    (host.root / "bound").mkdir()
    mounts = (BindMount(source=str(host.root / "bound"), target="/b"),)
    id = await host.make("true", security=Security(read_only_root=True), mounts=mounts)
    with pytest.raises(ReadOnly, match=r"/tmp in container .* is read-only"):
        await put(host, id, "/tmp", ("f", "file", b""))
    await put(host, id, "/b", ("f", "file", b"1"))
    assert (host.root / "bound/f").read_bytes() == b"1"


@pytest.mark.parametrize("running", [True, False])
async def test_no_path_leads_above_the_root(host: Host, running: bool) -> None:
    id = await (host.start if running else host.make)("sleep", "60")
    for path in ("/..", "/../..", "/bin/../..", "/../."):
        entries = (await got(host, id, path))[1]
        assert {name.strip("./").partition("/")[0] for name in entries} >= {"bin", "etc", "tmp"}
        assert not any("config.json" in name or "rootfs" in name or ".." in name for name in entries)
        await put(host, id, path, ("at-the-top", "file", b""))
        assert (await host.engine.file_stat(id, "/at-the-top")).size == 0
    assert not (host.root / f"data/containers/{id}/at-the-top").exists()


async def test_links_are_copied_as_links_unless_the_path_ends_as_a_directory(host: Host) -> None:
    id = await host.make("true")
    links = (("d", "dir", ""), ("d/f", "file", b"1"), ("l", "link", "d"), ("m", "link", "/tmp/l"), ("n", "link", "no"))
    await put(host, id, "/tmp", *links)
    assert {(await host.engine.file_stat(id, f"/tmp/{link}")).link_target for link in "lm"} == {"/tmp/d"}
    assert (await host.engine.file_stat(id, "/tmp/n")).link_target == "/tmp/no"
    for path, names in (
        ("/tmp/m", {"m"}),
        ("/tmp/m/", {"m", "m/f"}),
        ("/tmp/m/.", {".", "./f"}),
        ("/tmp/./d", {"d", "d/f"}),
    ):
        found, entries, _ = await got(host, id, path)
        assert set(entries) == names
        assert entries[min(names)].issym() == (path == "/tmp/m") == bool(found.link_target)
    assert {"", "/bin", "/tmp/d/f"} <= {name.removesuffix("/") for name in (await got(host, id, "/"))[1]}
    with pytest.raises(Invalid, match="not a directory"):
        await host.engine.file_stat(id, "/tmp/d/f/")
    await put(host, id, "/tmp/m", ("g", "file", b"2"))
    assert (await got(host, id, "/tmp/d/g"))[2] == {"g": b"2"}


async def test_names_attributes_and_holes_are_kept(host: Host) -> None:
    name, value = os.fsdecode(b"caf\xe9 \n"), os.fsdecode(b"\0\xff=1\n")
    id = await host.make("true")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = 8 << 20, 0o4755, 1.5
        entry.pax_headers = {"SCHILY.xattr.user.a": value, "SCHILY.xattr.trusted.overlay.opaque": "y"}
        tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    await host.engine.file_unpack(id, "/tmp", pieces(buffer.getvalue()))
    written = Path(os.fsdecode(os.fsencode(host.root / f"data/containers/{id}/upper/tmp"))) / name
    assert written.stat().st_blocks * 512 < 1 << 20 and written.stat().st_size == 8 << 20
    entry = (await got(host, id, "/tmp/."))[1][f"./{name}"]
    assert (entry.mode, entry.mtime, entry.size) == (0o4755, 1.5, 8 << 20)
    assert entry.pax_headers["SCHILY.xattr.user.a"] == value and not any("trusted" in h for h in entry.pax_headers)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ((("../out", "file", b"x"),), "leads out"),
        ((("a/../../out", "file", b"x"),), "leads out"),
        ((("d", "device", ""),), "device node"),
    ],
)
async def test_hostile_archives_are_refused(host: Host, entries: Any, said: str) -> None:
    id = await host.make("true")
    with pytest.raises(Invalid, match=said):
        await put(host, id, "/tmp", *entries)


async def test_links_lead_nowhere_but_inside(host: Host) -> None:
    """CVE-2018-15664: a directory of the container's is a link to one of the host's, made inside or by an archive."""
    outside = host.root / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    id = await host.start(
        "sh", "-c", f"ln -s {outside} /tmp/l; ln -s ../../../../../../..{outside} /tmp/m; exec sleep 60"
    )
    await until("the links", lambda: (host.root / f"data/containers/{id}/upper/tmp/m").is_symlink())
    for path in ("/tmp/l/secret", "/tmp/m/secret", "/proc/1/root/tmp/../../../etc/shadow-of-nothing"):
        with pytest.raises(NotFound):
            await got(host, id, path)
    for path in ("/tmp/l", "/tmp/m"):
        with pytest.raises(NotFound):
            await put(host, id, path, ("f", "file", b""))
    for link in (str(outside), "/etc", "../etc"):  # nor out of the directory, inside the container
        with pytest.raises(Invalid, match="leads out of /tmp by a link"):
            await put(host, id, "/tmp", ("x", "link", link), ("x/f", "file", b"out"))
        with pytest.raises(Invalid, match="leads out of /tmp by a link"):
            await put(host, id, "/tmp", ("x", "link", link), ("y", "hard", "x/passwd"))
    with pytest.raises(NotFound):
        await host.engine.file_stat(id, "/etc/f")
    assert [path.name for path in outside.iterdir()] == ["secret"]


@pytest.mark.parametrize("running", [True, False])
async def test_links_that_are_there_lead_on_inside_the_container(host: Host, running: bool) -> None:
    """As images have them: /var/run -> /run, /lib -> usr/lib."""
    outside = host.root / "outside"
    outside.mkdir()
    id = await host.make("sleep", "60")
    start = (("o/real", "dir", ""), ("o/abs", "link", "/tmp/o/real"), ("o/rel", "link", "../../var"))
    await put(host, id, "/tmp", *start, ("o/host", "link", str(outside)), ("o/top", "link", "../../../../../../var"))
    if running:
        await host.engine.start(id)
    places = {"abs/f": "/tmp/o/real/f", "rel/g/h": "/var/g/h", "top/i": "/var/i"}
    for name, place in places.items():
        await put(host, id, "/tmp/o", (name, "file", name.encode()))
        assert (await got(host, id, place))[2] == {place.rpartition("/")[2]: name.encode()}
        assert (await host.engine.file_stat(id, f"/tmp/o/{name.partition('/')[0]}")).link_target
    with pytest.raises(Invalid, match="leads nowhere"):
        await put(host, id, "/tmp/o", ("host/f", "file", b"out"))
    await put(host, id, "/tmp/o", ("own", "link", "real"), ("own/j", "file", b"j"))
    await put(host, id, "/tmp/o", ("own", "link", "/etc"), ("own", "dir", ""), ("own/k", "file", b"k"))
    assert (await got(host, id, "/tmp/o/own/k"))[2] == {"k": b"k"}
    assert list(outside.iterdir()) == []


async def test_a_start_waits_for_files_that_are_being_put(host: Host) -> None:
    """Two mounts of the same upper directory would not see each other's changes."""
    id = await host.make("sleep", "60")
    data, go = archive(("f", "file", b"whole\n")), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield data[:600]
        await go.wait()
        yield data[600:]

    async with asyncio.TaskGroup() as group:
        putting = group.create_task(host.engine.file_unpack(id, "/tmp", slowly()))
        upper = host.root / f"data/containers/{id}/upper/tmp"
        await until("the archive's beginning", lambda: upper.is_dir() or putting.done())
        starting = group.create_task(host.engine.start(id))
        again = group.create_task(put(host, id, "/var", ("g", "file", b"")))
        done, _ = await asyncio.wait({starting, again}, timeout=0.3)
        assert not done, "it went on in the middle"
        go.set()
    assert (await host.engine.exec(id, ["cat", "/tmp/f"])).stdout == b"whole\n"


async def test_a_directory_that_is_swapped_for_a_link_all_the_time(host: Host) -> None:
    outside = host.root / "outside"
    outside.mkdir()
    (outside / "f").write_text("secret")
    swap = f"mv /r/d /r/e; ln -s {outside} /r/d; rm /r/d; mv /r/e /r/d"
    script = f"mkdir -p /r/d; echo inside > /r/d/f; while :; do {swap}; done"
    id = await host.start("sh", "-c", script)
    await until("the start", lambda: (host.root / f"data/containers/{id}/upper/r").exists())
    for _ in range(40):
        try:
            assert b"secret" not in b"".join((await got(host, id, "/r/d/f"))[2].values())
            await put(host, id, "/r/d", ("f", "file", b"inside\n"))
        except (NotFound, Invalid):
            pass
    assert (outside / "f").read_text() == "secret" and [path.name for path in outside.iterdir()] == ["f"]


async def test_changes_and_export(host: Host) -> None:
    script = (
        "echo a > /new; mkdir /dir; echo b > /dir/f; rm /etc/group; echo c >> /etc/passwd; rm -r /home; mkdir /home"
    )
    id = await host.start("sh", "-c", script)
    await host.engine.wait(id)
    found = [(change.path, change.kind) for change in await asyncio.to_thread(host.engine.changes, id)]
    assert found == [
        ("/dir", 1),
        ("/dir/f", 1),
        ("/etc", 0),
        ("/etc/group", 2),
        ("/etc/passwd", 0),
        ("/home", 0),
        ("/new", 1),
    ]
    data = b"".join([piece async for piece in host.engine.export(id)])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = set(tar.getnames())
    assert {"new", "dir/f", "bin/busybox", "etc/passwd"} <= names and "etc/group" not in names
    assert host.engine.sizes(id)[0] > 0


async def test_one_who_leaves_in_the_middle_leaves_nothing_behind(host: Host) -> None:
    id = await host.start("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64; exec sleep 60")
    await until("the file", lambda: (host.root / f"data/containers/{id}/upper/big").exists())
    stream = host.engine.file_archive(id, "/big")
    assert isinstance(await anext(stream), Found)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]

    def ended() -> bool:
        names = [path.read_text() for path in Path("/proc").glob("[0-9]*/comm") if path.exists()]
        return not any("swarmd-archive" in name for name in names)

    await until("the end of the process", ended)
