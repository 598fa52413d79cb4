"""What COPY and ADD make of files, directories, links, URLs and repositories."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from swarmd.runtime.build.dockerfile import DockerfileError
from tests.host.builds import Builds, Files
from tests.host.engine_host import Host

pytestmark = pytest.mark.root

TREE: Files = {
    "src": None,
    "src/a.txt": b"a",
    "src/b.md": b"b",
    "src/deep": None,
    "src/deep/c.txt": b"c",
    "src/deep/d.md": b"d",
    "one": b"one",
}


@pytest.fixture
def builder(host: Host) -> Builds:
    return Builds(host)


async def made(builder: Builds, lines: str, look: str, files: Files | None = None) -> str:
    image = await builder.build(f"FROM busybox\n{lines}\n", TREE if files is None else files)
    return await builder.shows(image, look, entrypoint=())


async def test_excluded_files_and_kept_parents(builder: Builds) -> None:
    find = "cd /x && find . | sort | tr '\\n' ' '"
    assert (
        await made(builder, "COPY --exclude=*.md --exclude=deep/*.txt src /x", find) == ". ./a.txt ./deep ./deep/d.md "
    )
    assert await made(builder, "COPY --exclude=deep src /x", find) == ". ./a.txt ./b.md "
    assert await made(builder, "COPY --exclude=deep --exclude=!deep/c.txt src /x", find) == (
        ". ./a.txt ./b.md ./deep ./deep/c.txt "
    )
    assert await made(builder, "COPY --parents src/deep/c.txt one /x/", find) == (
        ". ./one ./src ./src/deep ./src/deep/c.txt "
    )
    assert await made(builder, "COPY --parents src/./deep/*.md /x/", find) == ". ./deep ./deep/d.md "
    assert await made(builder, "COPY --parents ./**/*.txt /x/", find) == (
        ". ./src ./src/a.txt ./src/deep ./src/deep/c.txt "
    )


async def test_a_file_goes_into_a_directory_and_through_links_to_one_and_over_links_to_files(builder: Builds) -> None:
    lines = """\
RUN mkdir -p /d /real && ln -s real /link && echo kept > /target && ln -s target /file && ln -s nowhere /dangling
COPY one /d
COPY one /link/
COPY one /file
COPY one /dangling
COPY src /link
COPY one /new/sub/name"""
    look = "cat /d/one /real/one /new/sub/name /dangling; readlink /file || cat /file; cat /target; ls /real"
    assert await made(builder, lines, look) == "oneoneoneoneonekept\na.txt\nb.md\ndeep\none\n"


LINKS: Files = {
    "real": None,
    "real/f": b"f",
    "real/inner": "f",
    "dir": "real",
    "far": "there",
    "there": "dir",
    "file": "far/f",
    "name1": "/real/inner",
    "name2": "real/f",
    "nowhere": "gone",
    "round": "round",
}


async def test_a_link_that_is_named_is_what_it_leads_to_and_one_in_a_directory_stays_a_link(builder: Builds) -> None:
    look = "cd /x && for f in $(find . | sort); do echo $f $(readlink $f || stat -c %F $f); done"
    regular, tree = "regular file", [". directory", "./f regular file", "./inner f"]
    image = await builder.build(
        "FROM busybox\nCOPY . /c/\nRUN ln -s /etc/passwd /c/name3; ln -sf /c/real/inner /c/name1\n",
        LINKS,
        refs=("made",),
    )
    for start in ("COPY ", "COPY --from=made /c/"):
        for source, found in {
            "file": [". directory", f"./file {regular}"],
            "name*": [". directory", *(f"./name{n} {regular}" for n in range(1, 3 if start == "COPY " else 4))],
            "dir": tree,
            "far": tree,
            "fa*": tree,
            "there/inner": [". directory", f"./inner {regular}"],
            "real": tree,
        }.items():
            assert (await made(builder, f"{start}{source} /x/", look, LINKS)).splitlines() == found, start + source
        for source in ("nowhere", "round", "round/x", "nowhere/x"):
            with pytest.raises(DockerfileError, match=r"which is not there|is not in|too many levels"):
                await made(builder, f"{start}{source} /x/", look, LINKS)
    assert await builder.shows(image, "readlink /c/far; readlink /c/nowhere") == "there\ngone\n"
    kept = await made(builder, "COPY --parents --from=made /c/./name* /x/", look)
    assert kept.splitlines() == [". directory", "./name1 /c/real/inner", "./name2 real/f", "./name3 /etc/passwd"]


async def test_a_pattern_may_match_nothing(builder: Builds) -> None:
    look = "ls /x 2>/dev/null; true"
    assert await made(builder, "COPY one two* /x/", look) == "one\n"
    assert not [one for one in builder.said if one.state == "warning"]
    assert await made(builder, "COPY two* th[r]ee /x/", look) == ""
    warned = [one.data.decode() for one in builder.said if one.state == "warning"]
    assert warned == ["Dockerfile:2: COPY copies nothing: the build context has no two* or th[r]ee"]


async def test_modes_by_letters_are_those_of_files_and_directories(builder: Builds) -> None:
    look = "stat -c '%a %n' /x /x/a.txt /x/deep/c.txt"
    assert await made(builder, "COPY --chmod=u=rwX,go=rX src /x", look) == "755 /x\n644 /x/a.txt\n644 /x/deep/c.txt\n"
    assert await made(builder, "COPY --chmod=a-w,u+x src /x", look) == "550 /x\n544 /x/a.txt\n544 /x/deep/c.txt\n"
    assert await made(builder, "ARG M=700\nCOPY --chmod=$M src /x", look) == "700 /x\n700 /x/a.txt\n700 /x/deep/c.txt\n"
    with pytest.raises(DockerfileError, match="--chmod=u~w is no mode"):
        await made(builder, "COPY --chmod=u~w src /x", look)


async def test_a_linked_layer_is_the_same_on_another_base(builder: Builds) -> None:
    text = "FROM busybox\nRUN echo {} > /base\nCOPY --link --chown=7:8 src /x/y\n"
    one, two = [await builder.build(text.format(base), TREE) for base in ("one", "two")]
    assert one.variant.diff_ids[-1] == two.variant.diff_ids[-1]
    assert one.variant.diff_ids[-2] != two.variant.diff_ids[-2]
    assert builder.cached() == ["COPY --link --chown=7:8 src /x/y"]
    assert await builder.shows(two, "cat /base /x/y/a.txt; stat -c %u:%g /x/y/a.txt") == "two\na7:8\n"


async def test_owners_by_name_and_number(builder: Builds) -> None:
    look = "stat -c '%u:%g' /x/a.txt"
    for owner, is_ in {
        "app": "1000:1000",
        "app:extra": "1000:2000",
        "5": "5:5",
        "5:extra": "5:2000",
        "root:9": "0:9",
    }.items():
        assert await made(builder, f"COPY --chown={owner} src /x", look) == f"{is_}\n", owner


async def test_workdir_is_relative_and_made_of_variables(builder: Builds) -> None:
    lines = "ENV BASE=/srv\nWORKDIR $BASE/app\nWORKDIR sub\nWORKDIR ../other/\nCOPY one .\nCOPY one two/"
    assert await made(builder, lines, "pwd; find /srv | sort | tr '\\n' ' '") == (
        "/srv/app/other\n/srv /srv/app /srv/app/other /srv/app/other/one /srv/app/other/two /srv/app/other/two/one "
        "/srv/app/sub "
    )


# ---------------------------------------------------------------- from elsewhere


@pytest.fixture
async def web_server() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        if request.path != "/files/tool.bin":
            return web.Response(status=404)
        return web.Response(body=b"tool", headers={"Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}/files"


async def test_add_brings_a_file_of_a_url(builder: Builds, web_server: str) -> None:
    digest = hashlib.sha256(b"tool").hexdigest()
    lines = f"""\
ARG SITE={web_server}
ADD $SITE/tool.bin /d/
ADD --chmod=755 --chown=3:4 --checksum=sha256:{digest} $SITE/tool.bin?x=1 /named"""
    look = "cat /d/tool.bin /named; stat -c ' %a %u:%g %Y' /d/tool.bin /named"
    assert await made(builder, lines, look) == "tooltool 600 0:0 1000000000\n 755 3:4 1000000000\n"
    await made(builder, lines, look)
    assert len(builder.cached()) == 2
    with pytest.raises(DockerfileError, match=f"Dockerfile:2: .*/tool.bin is sha256:{digest}, and not sha256:0000"):
        await made(builder, f"ADD --checksum=sha256:{'0' * 64} {web_server}/tool.bin /x", look)
    long = hashlib.sha512(b"tool").hexdigest()
    assert await made(builder, f"ADD --checksum=sha512:{long} {web_server}/tool.bin /x", "cat /x") == "tool"
    for checksum, source, why in (
        ("md5:00", f"{web_server}/tool.bin", "does not begin with sha256, sha384, sha512"),
        (f"sha512:{digest}", f"{web_server}/tool.bin", f"is sha512:{long}, and not"),
        (f"sha256:{digest}", "one", "--checksum is for one thing that comes from a URL or a repository"),
    ):
        with pytest.raises(DockerfileError, match=why):
            await made(builder, f"ADD --checksum={checksum} {source} /x", look)
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: .*/gone could not be fetched: the server answered 404"):
        await made(builder, f"ADD {web_server}/gone /x", look)
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: http://127.0.0.1:1/x could not be fetched: "):
        await made(builder, "ADD http://127.0.0.1:1/x /x", look)


@pytest.fixture
async def repositories(tmp_path: Path) -> AsyncIterator[str]:
    """A git server with a repository, r.git, of two branches."""
    work = tmp_path / "repository"
    commands = """\
git init -q -b main . && git config user.email a@b && git config user.name n && git config commit.gpgsign false
mkdir sub && echo main > file && echo below > sub/f && git add . && git commit -q -m one
git checkout -q -b other && echo other > file && git commit -q -a -m two && git checkout -q main
git clone -q --bare . ../served/r.git"""
    work.mkdir()
    (tmp_path / "served").mkdir()
    setup = await asyncio.create_subprocess_exec("sh", "-ec", commands, cwd=work)
    assert await setup.wait() == 0
    port = unused_port()
    words = ["--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all", f"--base-path={tmp_path}/served"]
    server = await asyncio.create_subprocess_exec("/usr/lib/git-core/git-daemon", *words)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except ConnectionRefusedError:
                    assert server.returncode is None
                    await asyncio.sleep(0.02)
        writer.close()
        yield f"git://127.0.0.1:{port}/r.git"
    finally:
        server.terminate()
        await server.wait()


async def test_add_brings_a_repository(builder: Builds, repositories: str) -> None:
    look = "cd /x && find . | sort | tr '\\n' ' '; cat f* 2>/dev/null"
    assert await made(builder, f"ADD {repositories} /x", look) == ". ./file ./sub ./sub/f main\n"
    assert await made(builder, f"ADD {repositories}#other /x", look) == ". ./file ./sub ./sub/f other\n"
    assert await made(builder, f"ADD {repositories}#main:sub /x", look) == ". ./f below\n"
    with pytest.raises(DockerfileError, match=r"is commit [0-9a-f]{40}, and not 0000000 as --checksum says") as wrong:
        await made(builder, f"ADD --checksum=0000000 {repositories} /x", look)
    commit = str(wrong.value).partition("is commit ")[2][:40]
    assert await made(builder, f"ADD --checksum={commit} {repositories}#main:sub /x", look) == ". ./f below\n"
    with pytest.raises(DockerfileError, match="is no commit: of a repository, give 7 or more of its digits"):
        await made(builder, f"ADD --checksum=sha256:{commit} {repositories} /x", look)
    assert await made(builder, f"ADD --keep-git-dir {repositories} /x", "ls -d /x/.git") == "/x/.git\n"
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: .*#nothing could not be fetched: git: .*nothing"):
        await made(builder, f"ADD {repositories}#nothing /x", look)
    with pytest.raises(DockerfileError, match=r"the repository has no directory '../..'"):
        await made(builder, f"ADD {repositories}#main:../.. /x", look)


# ---------------------------------------------------------------- what files are besides content

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep


async def test_hard_links_and_capabilities_are_kept_between_stages(builder: Builds) -> None:
    upper = builder.host.root / "base"
    (upper / "d").mkdir(parents=True)
    (upper / "d/one").write_bytes(bytes(100_000))
    (upper / "d/two").hardlink_to(upper / "d/one")
    (upper / "able").write_bytes(b"able")
    os.setxattr(upper / "able", "security.capability", CAPABILITY)
    image = await builder.build("FROM busybox\nCOPY one /one\n", TREE, refs=("base",))
    layer = image.layers[-1]
    (upper / "d").rename(layer / "d")
    (upper / "able").rename(layer / "able")
    for owner in ("", "--chown=5:6 "):
        made = await builder.build(f"FROM busybox\nCOPY --from=base {owner}/d /d\nCOPY --from=base {owner}able /able\n")
        one, two = (made.layers[-2] / "d" / name for name in ("one", "two"))
        assert one.samefile(two) and one.stat().st_nlink == 2
        assert os.getxattr(made.layers[-1] / "able", "security.capability") == CAPABILITY
    context: Files = {"a": b"a"}
    made = await builder.build(
        "FROM busybox\nCOPY a /a\nRUN ln /a /b\nFROM busybox\nCOPY --from=0 /a /b /x/\n", context
    )
    assert await builder.shows(made, "stat -c '%h %a' /x/a /x/b") == "2 644\n2 644\n"
