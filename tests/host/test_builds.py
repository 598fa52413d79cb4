"""Dockerfiles are built: what the image holds, what the cache had, what is refused and how."""

import asyncio
import io
import tarfile

import pytest

from swarmd.runtime.build.dockerfile import DockerfileError
from tests.host.builds import Builds, Files
from tests.host.engine_host import Host

pytestmark = pytest.mark.root


@pytest.fixture
def builder(host: Host) -> Builds:
    return Builds(host)


async def test_an_image_is_what_its_dockerfile_says(builder: Builds) -> None:
    text = """\
ARG TAG=latest
FROM busybox:${TAG} AS base
ARG GREETING=hello
ENV WHO=world PATH=/opt/bin:$PATH
WORKDIR /srv/app
COPY app .
COPY --chown=app:app --chmod=600 README /home/app/
RUN echo "$GREETING $WHO" > said && touch /gone && mkdir -p /opt/bin
RUN rm /gone && rm /bin/wget
LABEL a=1 "b c"="d e"
EXPOSE 80 9000-9001/udp
VOLUME /data
USER app
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat /srv/app/said"]
"""
    files = {"app": None, "app/main": b"#!/bin/sh\n", "app/lib": "main", "README": b"read"}
    image = await builder.build(text, files, args={"GREETING": "good day"}, refs=("made",))
    assert builder.host.engine.images.get("made").id == image.id
    config = image.config
    assert (config.workdir, config.user, config.stop_signal, config.volumes) == (
        "/srv/app",
        "app",
        "SIGINT",
        ("/data",),
    )
    assert config.exposed_ports == ("80/tcp", "9000/udp", "9001/udp")
    assert config.labels == {"a": "1", "b c": "d e"}
    look = "cat said; stat -c '%u:%g %a' /home/app/README; ls /gone /bin/wget 2>&1; readlink lib; echo $PATH"
    shown = await builder.host.run(look, image=image.id, entrypoint=())
    assert shown.out.splitlines() == [
        "good day world",
        "1000:1000 600",
        "ls: /gone: No such file or directory",
        "ls: /bin/wget: No such file or directory",
        "main",
        "/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    history = [entry.created_by for entry in image.variant.document.history or ()]
    assert "COPY app ." in history


async def test_nothing_changed_is_nothing_done(builder: Builds) -> None:
    text = "FROM busybox\nCOPY a /a\nRUN date +%N > /when\nCOPY b /b\nWORKDIR /w\n"
    first = await builder.build(text, {"a": b"1", "b": b"2"})
    again = await builder.build(text, {"b": b"2", "a": b"1"})
    assert first.id == again.id
    assert builder.cached() == ["COPY a /a", "RUN date +%N > /when", "COPY b /b", "WORKDIR /w"]
    await builder.build(text, {"a": b"1", "b": b"3"})
    assert builder.cached() == ["COPY a /a", "RUN date +%N > /when"]
    await builder.build(text, {"a": b"1", "b": b"2"}, no_cache=True)
    assert builder.cached() == []


async def test_stages_run_side_by_side_and_only_those_that_are_needed(builder: Builds) -> None:
    text = """\
FROM busybox AS one
RUN cut -d' ' -f1 /proc/uptime > /out; sleep 2; cut -d' ' -f1 /proc/uptime >> /out
FROM busybox AS two
RUN cut -d' ' -f1 /proc/uptime > /out; sleep 2; cut -d' ' -f1 /proc/uptime >> /out
FROM busybox AS never
RUN exit 1
FROM busybox
COPY --from=one /out /one
COPY --from=two /out /two
"""
    image = await builder.build(text)
    one_began, one_ended, two_began, two_ended = map(float, (await builder.shows(image, "cat /one /two")).split())
    assert max(one_began, two_began) < min(one_ended, two_ended)


async def test_mounts_of_run(builder: Builds) -> None:
    text = """\
FROM busybox AS other
RUN mkdir /d && echo staged > /d/f
FROM busybox
RUN --mount=type=cache,target=/cache echo x >> /cache/log; cat /cache/log > /seen
RUN --mount=type=bind,source=dir,target=/ctx --mount=type=bind,from=other,source=/d,target=/st cat /ctx/f /st/f > /bound
RUN --mount=type=bind,source=dir,target=/ctx,rw echo changed > /ctx/f && cat /ctx/f > /rw
RUN --mount=type=secret,id=key cat /run/secrets/key | tr a-z A-Z > /secret
RUN --mount=type=secret,id=key,env=KEY echo "$KEY" | rev > /secretenv
RUN --mount=type=tmpfs,target=/t,size=1m mount | grep -q ' /t ' && echo y > /t/f
RUN ls /ctx /st /cache /run/secrets /t > /after 2>&1; true
"""
    image = await builder.build(text, {"dir": None, "dir/f": b"context\n"}, secrets={"key": b"qu1te-h1dden"})
    shown = await builder.shows(image, "cat /seen /bound /rw /secret; echo; cat /secretenv; grep -c 'No such' /after")
    assert shown.split() == ["x", "context", "staged", "changed", "QU1TE-H1DDEN", "nedd1h-et1uq", "5"]
    files: Files = {"dir": None, "dir/f": b"context\n"}
    again = await builder.build(text.replace("> /seen", "> /2"), files, secrets={"key": b"other"})
    assert await builder.shows(again, "cat /2") == "x\nx\n"
    for path in (builder.host.root / "data").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"qu1te-h1dden" not in path.read_bytes(), path


async def test_heredocs(builder: Builds) -> None:
    text = """\
FROM busybox
ENV NAME=there
COPY <<EOF <<'RAW' /d/
hello $NAME
EOF
raw $NAME
RAW
RUN <<EOF
cat /d/EOF
cat /d/RAW
EOF
RUN <<EOF
#!/bin/awk -f
BEGIN { print "from awk" > "/awk" }
EOF
RUN cat <<EOF > /shell
in the shell $NAME
EOF
"""
    image = await builder.build(text)
    assert builder.output() == "hello there\nraw $NAME\n"
    assert await builder.shows(image, "cat /awk /shell") == "from awk\nin the shell there\n"


async def test_archives_are_unpacked_by_add_and_not_by_copy(builder: Builds) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        entry = tarfile.TarInfo("deep/file")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"in"))
    files = {"a.tgz": inner.getvalue(), "plain": b"p"}
    image = await builder.build("FROM busybox\nADD a.tgz plain /x/\nCOPY a.tgz /y/\n", files)
    assert await builder.shows(image, "cat /x/deep/file /x/plain; ls /x /y") == "inp/x:\ndeep\nplain\n\n/y:\na.tgz\n"


async def test_the_same_source_date_gives_the_same_image(builder: Builds) -> None:
    text = "FROM busybox\nARG SOURCE_DATE_EPOCH\nCOPY a /a\nRUN mkdir /d && echo x > /d/f\n"
    ids = [
        (await builder.build(text, {"a": b"1"}, args={"SOURCE_DATE_EPOCH": "1700000000"}, no_cache=True)).id
        for _ in range(2)
    ]
    assert ids[0] == ids[1]


async def test_triggers_run_in_the_image_that_is_built_on_it(builder: Builds) -> None:
    await builder.build("FROM busybox\nONBUILD COPY f /f\nONBUILD RUN echo ran >> /f\n", refs=("base",))
    image = await builder.build("FROM base\nRUN echo own >> /f\n", {"f": b"file\n"})
    assert await builder.shows(image, "cat /f") == "file\nran\nown\n"
    assert image.config.onbuild == ()


async def test_a_stage_has_the_arguments_and_the_shell_of_the_one_it_goes_on_from(builder: Builds) -> None:
    text = """\
FROM busybox AS one
ARG GIVEN=default
ARG OWN=own
SHELL ["/bin/sh", "-ec"]
FROM one
RUN echo "$GIVEN $OWN" > /said; false; true
"""
    with pytest.raises(DockerfileError, match="ended with exit code 1"):
        await builder.build(text)
    image = await builder.build(text.replace("false; ", ""), args={"GIVEN": "given"})
    assert await builder.shows(image, "cat /said") == "given own\n"
    unrelated = text.replace("FROM one\n", "FROM busybox\n")
    image = await builder.build(unrelated, args={"GIVEN": "given"})
    assert await builder.shows(image, "cat /said") == " \n"


async def test_squashed_into_one_layer(builder: Builds) -> None:
    image = await builder.build("FROM busybox\nRUN echo a > /a; echo b > /b\nRUN rm /a /bin/wget\n", squash=True)
    assert len(image.layers) == 2
    assert await builder.shows(image, "ls /a /b /bin/wget 2>/dev/null; true") == "/b\n"


async def test_scratch(builder: Builds) -> None:
    image = await builder.build('FROM scratch\nCOPY --from=busybox /bin/busybox /bin/sh\nCMD ["/bin/sh"]\n')
    assert await builder.shows(image, "echo from scratch") == "from scratch\n"


async def test_what_a_step_finds_wrong_is_marked(builder: Builds) -> None:
    for text, line, word in {
        ("FROM busybox\nCOPY a \\\n  nothing f /x/\n", 3, "nothing"),
        ("FROM busybox\nCOPY f /x/f\nCOPY x f /x/\n", 3, "x"),
        ("FROM busybox\nCOPY a f /x\n", 2, "/x"),
        ("FROM busybox\nRUN --mount=type=secret,id=k,required x\n", 2, "k"),
        ("FROM busybox\nWORKDIR /a/${X:?not given}\n", 2, "${X:?not given}"),
        ("FROM busybox\nSTOPSIGNAL SIGNOT\n", 2, "SIGNOT"),
        ("FROM busybox\nEXPOSE 80 99999/tcp\n", 2, "99999/tcp"),
        ("FROM busybox\nCOPY --chmod=9 f /f\n", 2, "9"),
        ("FROM ${NO}\n", 1, "${NO}"),
    }:
        with pytest.raises(DockerfileError) as found:
            await builder.build(text, {"a": b"1", "f": b"2"})
        assert (found.value.line, found.value.word) == (line, word), found.value
    await builder.build("FROM busybox\nONBUILD COPY gone /f\n", refs=("base",))
    with pytest.raises(
        DockerfileError, match=r"Dockerfile:2: 'gone' .* the image has this step with ONBUILD: COPY gone"
    ):
        await builder.build("# one\nFROM base\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("FROM nothing-here\n", r"Dockerfile:1: image nothing-here is nowhere"),
        ("FROM busybox\nRUN echo so; exit 3\n", r"Dockerfile:2: RUN echo so; exit 3 ended with exit code 3: so"),
        ("FROM busybox\nCOPY missing /\n", r"Dockerfile:2: 'missing' is not in the build context"),
        ("FROM busybox\nCOPY --from=later a /\nFROM busybox AS later\n", r"no such stage|comes later"),
        ("FROM busybox\nRUN --mount=type=secret,id=k,required x\n", r"the secret k was not given"),
        ("FROM busybox\nRUN --security=insecure id\n", r"--security=insecure is not allowed"),
        ("FROM busybox\nCOPY --chown=ghost a /\n", r"ghost"),
        ("FROM busybox\nWORKDIR ${X:?not given}\n", r"Dockerfile:2: variable X: not given"),
        ("FROM $NO\n", r"comes to nothing"),
        ("FROM busybox AS build\nFROM biuld\n", r"Dockerfile:2: image biuld is nowhere; did you mean stage build\?"),
        ("FROM later\nFROM scratch AS later\nCOPY --from=0 / /\n", r"stage later does not stand before this one"),
        ("FROM busybox AS build\nFROM scratch\nCOPY --from=biuld a /\n", r"Dockerfile:3: .* did you mean stage build"),
    ],
)
async def test_what_is_wrong_is_said_with_its_line_and_leaves_nothing(builder: Builds, text: str, why: str) -> None:
    target = {"target": "0"} if "AS later" in text else {}
    with pytest.raises(DockerfileError, match=why):
        await builder.build(text, {"a": b"1"}, refs=("bad",), **target)
    assert [image.refs for image in builder.host.engine.images.list()] == [("docker.io/library/busybox:latest",)]
    assert builder.host.engine.list() == []


async def test_a_build_that_is_cancelled_leaves_nothing(builder: Builds) -> None:
    work = asyncio.ensure_future(builder.build("FROM busybox\nRUN echo begun; sleep 100\n"))
    while "begun" not in builder.output():
        assert not work.done(), work.exception()
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert builder.host.engine.list() == []
    assert [path.name for path in (builder.host.root / "data/builds/work").iterdir()] == ["empty"]
