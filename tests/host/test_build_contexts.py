"""Contexts that mean harm, or have names that nobody expects: refused with a sentence, or built as they are."""

import asyncio
import gzip
import io
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from swarmd.runtime.build.dockerfile import DockerfileError
from swarmd.runtime.build.request import Request
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.image import Image
from tests.host.builds import Builds, look, pull
from tests.host.engine_host import Host, chunks

pytestmark = pytest.mark.root


@pytest.fixture
def builder(host: Host) -> Builds:
    return Builds(host)


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, len(data)
    return found, data


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for found, data in entries:
            tar.addfile(found, io.BytesIO(data))
    return buffer.getvalue()


def left(builder: Builds) -> list[str]:
    """What is in the place where builds work."""
    (work,) = builder.host.root.rglob("work/empty")
    return sorted(path.name for path in work.parent.iterdir())


async def build(builder: Builds, text: str, *entries: tuple[tarfile.TarInfo, bytes]) -> Image:
    async with builder.host.engine.builder.context(chunks(archive(*entries))) as context:
        request = Request(dockerfile=text)
        return (await builder.host.engine.builder.build(request, context, pull, look, builder.said.append))[0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (entry("../out", data=b"x"), "leads out of it"),
        (entry("a/../../out", data=b"x"), "leads out of it"),
        (entry("hard", tarfile.LNKTYPE, "/etc/passwd"), "hard link to nothing"),
        (entry("disk", tarfile.BLKTYPE), "device"),
    ],
)
async def test_what_no_context_may_have_is_refused(
    builder: Builds, bad: tuple[tarfile.TarInfo, bytes], why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        await build(builder, "FROM busybox\nCOPY . /x\n", bad)


async def test_one_that_is_no_archive_is_refused_before_all_of_it_has_come(builder: Builds) -> None:
    taken = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        while True:
            taken += 1
            yield b"no archive at all" * 1000

    with pytest.raises(Invalid, match="the build context: this is not a tar archive"):
        async with builder.host.engine.builder.context(endless()):
            pass
    assert taken and left(builder) == ["empty"]


@pytest.mark.parametrize("how", [ConnectionResetError, asyncio.CancelledError])
async def test_one_whose_client_goes_leaves_nothing(builder: Builds, how: type[BaseException]) -> None:
    whole = archive(*(entry(str(n), data=bytes(100_000)) for n in range(9)))

    async def broken() -> AsyncGenerator[bytes, None]:
        yield whole[:500_000]
        raise how

    with pytest.raises(how):
        async with builder.host.engine.builder.context(broken()):
            pass
    assert left(builder) == ["empty"]
    with pytest.raises(Invalid, match="the build context: the tar archive is cut off in the middle of an entry"):
        async with builder.host.engine.builder.context(chunks(whole[:500_000])):
            pass
    assert left(builder) == ["empty"]


async def test_a_compressed_one_is_copied_from_where_its_files_are(builder: Builds) -> None:
    data = gzip.compress(archive(entry("a", data=b"1" * 1000), entry("b", data=b"2"), entry("c", tarfile.LNKTYPE, "b")))
    async with builder.host.engine.builder.context(chunks(data)) as context:
        request = Request(dockerfile="FROM busybox\nCOPY . /x/\n")
        image, _ = await builder.host.engine.builder.build(request, context, pull, look, builder.said.append)
    assert await builder.shows(image, "cat /x/b /x/c; wc -c < /x/a; stat -c %h /x/b") == "221000\n2\n"


async def test_links_out_of_the_context_lead_nowhere(builder: Builds, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    links = [
        entry("link", tarfile.SYMTYPE, str(tmp_path)),
        entry("up", tarfile.SYMTYPE, "../../../../.." + str(tmp_path)),
    ]
    for name in ("link", "up"):
        with pytest.raises(DockerfileError, match=f"'{name}/secret' is not in the build context"):
            await build(builder, f"FROM busybox\nCOPY {name}/secret /x\n", *links)
    image = await build(builder, "FROM busybox\nCOPY . /x/\n", *links, entry("/absolute", data=b"a"))
    assert await builder.shows(image, "readlink /x/link; cat /x/absolute") == f"{tmp_path}\na"


async def test_names_may_have_any_bytes(builder: Builds) -> None:
    odd = [entry("new\nline", data=b"1"), entry("b\udcffad", data=b"2"), entry(" [x]*", data=b"3")]
    image = await build(builder, "FROM busybox\nCOPY . /x/\nRUN rm /x/b*\n", *odd)
    assert await builder.shows(image, "cat /x/new* '/x/ [x]*'; ls -A /x | wc -l") == "132\n"


async def test_a_dockerfile_may_be_a_link_but_no_directory(builder: Builds) -> None:
    parts = [entry("other", data=b"FROM busybox\n"), entry("Dockerfile", tarfile.SYMTYPE, "./other")]
    parts.append(entry("loop", tarfile.SYMTYPE, "loop"))
    async with builder.host.engine.builder.context(chunks(archive(*parts))) as context:
        with pytest.raises(Invalid, match="has no file missing"):
            context.text("missing")
        assert context.text("Dockerfile") == "FROM busybox\n"
        with pytest.raises(Invalid, match="has no file loop"):
            context.text("loop")
    async with builder.host.engine.builder.context(chunks(archive(entry("Dockerfile", tarfile.DIRTYPE)))) as context:
        with pytest.raises(Invalid, match="has no file Dockerfile"):
            context.text("Dockerfile")
