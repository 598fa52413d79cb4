"""RUN of builds on a real engine: who waits for whom, and what its mounts give to the command."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.runtime.build.dockerfile import DockerfileError
from swarmd.runtime.model import Ulimit
from tests.host.builds import Builds
from tests.host.engine_host import Host

pytestmark = pytest.mark.root


@pytest.fixture
def builder(host: Host) -> Builds:
    return Builds(host)


async def both(host: Host, *texts: str) -> list[Builds]:
    """Builds side by side, in the order of the texts."""
    builds = [Builds(host) for _ in texts]
    async with asyncio.timeout(40):
        await asyncio.gather(*(build.build(text) for build, text in zip(builds, texts, strict=True)))
    return builds


async def test_two_builds_of_the_same_make_it_once(host: Host) -> None:
    text = "FROM busybox\nRUN sleep 1; date +%N > /when\nWORKDIR /w\n"
    first, second = await both(host, text, text)
    assert sorted([len(first.cached()), len(second.cached())]) == [0, 2]
    assert len({*host.engine.builder.records()}) == 2


async def test_a_step_that_fails_in_one_build_is_tried_by_the_other(host: Host) -> None:
    text = "FROM busybox\nRUN sleep 1; echo tried; exit 4\n"
    builds = [Builds(host), Builds(host)]
    found = await asyncio.gather(*(build.build(text) for build in builds), return_exceptions=True)
    assert [getattr(problem, "code", problem) for problem in found] == [4, 4]
    assert [build.output() for build in builds] == ["tried\n", "tried\n"]


@pytest.mark.parametrize(("sharing", "together", "seen"), [("locked", False, 2), ("private", True, 1)])
async def test_cache_mounts_are_shared_between_builds_as_is_asked_for(
    host: Host, sharing: str, together: bool, seen: int
) -> None:
    run = f"RUN --mount=type=cache,id=c,target=/c,sharing={sharing} "
    script = "touch /c/begun; until test {wait}; do sleep 0.05; done; echo x >> /c/log; wc -l < /c/log; rm /c/begun"
    begun = Builds(host)
    first = asyncio.ensure_future(
        begun.build(f"FROM busybox\n{run} echo begun; sleep 2; {script.format(wait='1 = 1')}; rm -f /c/begun\n")
    )
    async with asyncio.timeout(20):
        while "begun" not in begun.output():
            assert not first.done(), first.exception()
            await asyncio.sleep(0.01)
        second = Builds(host)
        await second.build(f"FROM busybox\n{run} {script.format(wait='! -e /c/other')}\n")
        assert first.done() is not together
        await first
    assert second.output().strip() == str(seen)


async def test_steps_that_lock_the_same_mounts_do_not_wait_for_one_another(host: Host) -> None:
    mounts = [f"--mount=type=cache,sharing=locked,target=/{name},id={name}" for name in ("a", "b", "a")]
    lines = [
        f"RUN {' '.join(order)} test -d /a && sleep 0.5; echo {n}" for n, order in enumerate((mounts[:2], mounts[1:]))
    ]
    twice = f"RUN {mounts[0]} {mounts[0].replace('/a', '/again')} test -d /again && echo 2"
    found = await both(host, *(f"FROM busybox\n{line}\n" for line in (*lines, twice)))
    assert [build.output() for build in found] == ["0\n", "1\n", "2\n"]


@pytest.fixture
def agent(host: Host) -> Iterator[Path]:
    path = Path(f"/tmp/agent-{host.root.name}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path
    path.unlink(missing_ok=True)


async def test_an_agent_is_reached_by_whom_the_mount_names(builder: Builds, agent: Path) -> None:
    text = """\
FROM busybox
RUN --mount=type=ssh stat -c '%u %a %F' $SSH_AUTH_SOCK
USER app
RUN --mount=type=ssh,id=other,target=/home/app/agent,uid=1000,gid=2000,mode=0660 \\
    stat -c '%u:%g %a' /home/app/agent; test $SSH_AUTH_SOCK = /home/app/agent && echo there
RUN --mount=type=ssh,uid=1000 test -w $SSH_AUTH_SOCK && echo mine
RUN --mount=type=ssh test -w $SSH_AUTH_SOCK || echo theirs
RUN --mount=type=ssh,id=none test -z "$SSH_AUTH_SOCK" && echo none
"""
    await builder.build(text, ssh={"default": agent, "other": agent})
    said = builder.output().splitlines()
    assert said == ["0 600 socket", "1000:2000 660", "there", "mine", "theirs", "none"]
    with pytest.raises(DockerfileError, match="the SSH agent none was not given: build with --ssh none"):
        await builder.build("FROM busybox\nRUN --mount=type=ssh,id=none,required true\n")
    agent.unlink()
    with pytest.raises(DockerfileError, match=f"the SSH agent at {agent} is gone"):
        await builder.build("FROM busybox\nRUN --mount=type=ssh echo other\n", ssh={"default": agent})


async def test_the_hosts_network_is_for_those_who_are_allowed_it(builder: Builds) -> None:
    text = "FROM busybox\nRUN --network=host readlink /proc/self/ns/net\n"
    with pytest.raises(DockerfileError, match=r"not allowed: build with --allow network\.host"):
        await builder.build(text)
    await builder.build(text, allowed=("network.host",))
    assert builder.output().strip() == str(Path("/proc/self/ns/net").readlink())


async def test_workdir_belongs_to_the_user_of_that_place(builder: Builds) -> None:
    text = "FROM busybox\nUSER app\nWORKDIR /home/app/a/b\nRUN touch here; stat -c %u:%g /home/app/a . here\n"
    await builder.build(text)
    assert builder.output().split() == ["1000:1000"] * 3


async def test_options_of_mounts(builder: Builds) -> None:
    text = """\
FROM busybox AS base
RUN mkdir /d && echo orig > /d/f && chown -R 1000:2000 /d
FROM busybox
RUN --mount=type=cache,target=/c,mode=0750,uid=1000,gid=2000 stat -c '%a %u:%g' /c
RUN --mount=type=cache,id=x,target=/c,from=base,source=/d cat /c/f; stat -c '%u:%g' /c/f; echo more >> /c/f
RUN --mount=type=cache,id=x,target=/c,readonly cat /c/f; touch /c/no 2>/dev/null || echo readonly
RUN --mount=type=tmpfs,target=/t,size=1m head -c 3000000 /dev/zero > /t/big 2>/dev/null || echo full
RUN --mount=type=secret,id=k,target=s/k,mode=0440,uid=1000,gid=2000 stat -c '%a %u:%g' /s/k; cat /s/k
RUN --mount=type=secret,id=k,env=KEY,target=/x echo $KEY; cat /x
RUN --mount=type=secret,id=none test ! -e /run/secrets && echo none
RUN --mount=type=bind,from=0,source=d,target=/b cat /b/f; touch /b/x 2>/dev/null || echo readonly
RUN --security=insecure mount -t tmpfs none /tmp && echo insecure
RUN df -k /dev/shm | tail -1 | sed 's/ \\+/ /g' | cut -d' ' -f2; ulimit -n
"""
    more = {"shm_size": 10 << 20, "ulimits": (Ulimit(name="nofile", soft=77, hard=99),)}
    await builder.build(text, secrets={"k": b"secret\n"}, allowed=("security.insecure",), **more)
    assert builder.output().splitlines() == [
        *("750 1000:2000", "orig", "1000:2000", "orig", "more", "readonly", "full"),
        *("440 1000:2000", "secret", "secret", "secret", "none", "orig", "readonly"),
        *("insecure", "10240", "77"),
    ]


async def test_of_a_step_that_says_too_much_the_beginning_and_the_end_are_told(builder: Builds) -> None:
    script = "seq 1 900000; echo last >&2; exit 3"
    with pytest.raises(DockerfileError, match="ended with exit code 3: last"):
        await builder.build(f"FROM busybox\nRUN {script}\n")
    lines = builder.output().splitlines()
    clipped = next(at for at, line in enumerate(lines) if line.startswith("[this step says too much"))
    begun = [line for line in lines[: clipped - 1] if line]
    assert begun == [str(n) for n in range(1, 100_002)]
    assert lines[clipped + 1 :] == [*map(str, range(900_000 - 8, 900_001)), "last"]


async def test_a_step_after_volume_keeps_what_it_writes_there(builder: Builds) -> None:
    await builder.build("FROM busybox\nRUN mkdir /v\nVOLUME /v\nRUN echo x > /v/x\nRUN cat /v/x\n")
    assert builder.output() == "x\n"
