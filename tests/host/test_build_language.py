"""What instructions make of an image's configuration, and of the surroundings of RUN."""

import pytest

from swarmd.runtime.build.dockerfile import DockerfileError
from swarmd.runtime.images.manifests import host_platform, parse_platform
from swarmd.runtime.model import Limits
from tests.host.builds import Builds
from tests.host.engine_host import Host

pytestmark = pytest.mark.root


@pytest.fixture
def builder(host: Host) -> Builds:
    return Builds(host)


async def test_health_checks(builder: Builds) -> None:
    text = "FROM busybox\nHEALTHCHECK --interval=1m30s --timeout=500ms --start-period=2s --retries=7 CMD test -e /x\n"
    health = (await builder.build(text, refs=("checked",))).config.health
    assert health is not None
    assert (health.test, health.interval, health.timeout, health.start_period, health.retries) == (
        ("CMD-SHELL", "test -e /x"),
        90,
        0.5,
        2,
        7,
    )
    listed = (await builder.build('FROM checked\nHEALTHCHECK CMD ["test", "-e", "$X"]\n')).config.health
    assert listed is not None
    assert listed.test == ("CMD", "test", "-e", "$X")
    none = (await builder.build("FROM checked\nHEALTHCHECK NONE\n")).config.health
    assert none is not None
    assert none.test == ("NONE",)


async def test_words_of_the_configuration_are_expanded(builder: Builds) -> None:
    text = """\
FROM busybox
ARG PORT=80
ENV DIR=/data SIGNAL=TERM WHO=app
EXPOSE $PORT 8000-8002/udp $PORT/tcp 127.0.0.1:8443:443
VOLUME $DIR /b
VOLUME ["/c d", "/b"]
USER ${WHO}:extra
STOPSIGNAL SIG$SIGNAL
LABEL where="$DIR/$PORT" plain='$DIR'
"""
    image = await builder.build(text)
    config = image.config
    assert sorted(config.exposed_ports) == ["443/tcp", "80/tcp", "8000/udp", "8001/udp", "8002/udp"]
    assert sorted(config.volumes) == ["/b", "/c d", "/data"]
    assert (config.user, config.stop_signal) == ("app:extra", "SIGTERM")
    assert config.labels == {"where": "/data/80", "plain": "$DIR"}
    assert await builder.shows(image, "id -u; id -g") == "1000\n2000\n"
    image = await builder.build(
        "FROM busybox\nRUN chmod 777 /tmp\nUSER app:extra\nRUN id -u > /tmp/id; id -g >> /tmp/id\n"
    )
    assert await builder.shows(image, "cat /tmp/id") == "1000\n2000\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("EXPOSE 70000", "'70000' is no port"),
        ("EXPOSE 90-80", "give a port or a range"),
        ("EXPOSE 80/quic", "tcp, udp or sctp"),
        ("STOPSIGNAL SIGNOTHING", "SIGNOTHING"),
        ("STOPSIGNAL 400", "400"),
        ("USER ghost\nRUN true", "ghost"),
        ('VOLUME [""]', "empty"),
    ],
)
async def test_values_that_can_never_work_are_refused(builder: Builds, line: str, why: str) -> None:
    with pytest.raises(DockerfileError, match=why):
        await builder.build(f"FROM busybox\n{line}\n")


async def test_a_real_time_signal_stops_what_asks_for_it(builder: Builds) -> None:
    image = await builder.build("FROM busybox\nSTOPSIGNAL SIGRTMIN+3\n")
    engine = builder.host.engine
    script = "trap 'exit 7' 37; echo ready; while true; do sleep 0.05; done"
    id = await builder.host.start("sh", "-c", script, image=image.id, stop_timeout=8)
    async for entry in engine.logs(id, follow=True):
        assert entry.data == b"ready\n"
        break
    await engine.stop(id)
    assert (await engine.wait(id)).code == 7


async def test_cmd_goes_with_its_entrypoint(builder: Builds) -> None:
    await builder.build('FROM busybox\nENTRYPOINT ["/bin/echo"]\nCMD ["base"]\n', refs=("base",))
    for lines, entrypoint, cmd in [
        ('ENTRYPOINT ["/bin/cat"]', ("/bin/cat",), ()),
        ('CMD ["mine"]\nENTRYPOINT ["/bin/cat"]', ("/bin/cat",), ("mine",)),
        ('ENTRYPOINT ["/bin/cat"]\nCMD ["mine"]', ("/bin/cat",), ("mine",)),
        ('CMD ["mine"]', ("/bin/echo",), ("mine",)),
        ("ENTRYPOINT []", (), ()),
        ("ENTRYPOINT exec top", ("/bin/sh", "-c", "exec top"), ()),
        ('SHELL ["/bin/ash", "-c"]\nCMD top', ("/bin/echo",), ("/bin/ash", "-c", "top")),
        ("RUN true", ("/bin/echo",), ("base",)),
    ]:
        config = (await builder.build(f"FROM base\n{lines}\n")).config
        assert (config.entrypoint, config.cmd) == (entrypoint, cmd), lines


async def test_triggers_may_have_texts_below_them(builder: Builds) -> None:
    text = "FROM busybox\nONBUILD RUN <<EOF\necho $WHO > /said\nEOF\nONBUILD COPY <<T /t\n$WHO\nT\nENV WHO=me\n"
    await builder.build(text, refs=("base",))
    image = await builder.build("FROM base\n")
    assert await builder.shows(image, "cat /said /t") == "me\nme\n"


async def test_run_has_no_network_if_none_is_asked_for(builder: Builds) -> None:
    image = await builder.build("FROM busybox\nRUN --network=none ls /sys/class/net > /links; true\n")
    assert await builder.shows(image, "cat /links") == "lo\n"


async def test_run_knows_the_hosts_that_are_given(builder: Builds) -> None:
    text = "FROM busybox\nRUN grep registry.test /etc/hosts > /seen\n"
    image = await builder.build(text, extra_hosts=("registry.test:10.1.2.3",))
    assert (await builder.shows(image, "cat /seen; grep -c registry.test /etc/hosts || true")).split() == [
        "10.1.2.3",
        "registry.test",
        "0",
    ]


async def test_run_that_takes_too_much_memory_is_said_to(builder: Builds) -> None:
    text = "FROM busybox\nRUN head -c 200m /dev/zero | tail\n"
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: RUN .* was killed because its memory ran out"):
        await builder.build(text, limits=Limits(memory=32 << 20))


async def test_an_image_of_another_platform_is_refused_by_name(builder: Builds) -> None:
    other = "linux/s390x"
    with pytest.raises(DockerfileError, match=f"Dockerfile:1: .*busybox.*{other}"):
        await builder.build("FROM busybox\n", platform=parse_platform(other))
    with pytest.raises(DockerfileError, match=f"Dockerfile:1: .*busybox.*{other}"):
        await builder.build(f"FROM --platform={other} busybox\n")
    image = await builder.build(f"FROM --platform={other} scratch\nLABEL a=1\n")
    assert str(image.variant.platform) == other


async def test_proxies_reach_run_and_change_no_key(builder: Builds) -> None:
    text = 'FROM busybox\nRUN echo "$HTTP_PROXY $no_proxy" > /seen\n'
    image = await builder.build(text, args={"HTTP_PROXY": "http://p:1", "no_proxy": "x"})
    assert await builder.shows(image, "cat /seen; env | grep -ci proxy || true") == "http://p:1 x\n0\n"
    again = await builder.build(text, args={"HTTP_PROXY": "http://q:2"})
    assert builder.cached()
    assert again.id == image.id


async def test_platforms_are_arguments(builder: Builds) -> None:
    names = [f"{side}{part}" for side in ("BUILD", "TARGET") for part in ("PLATFORM", "OS", "ARCH", "VARIANT")]
    declared = "".join(f"ARG {name}\n" for name in names)
    shown = " ".join(f"{name}=${name}" for name in names)
    host = host_platform()
    image = await builder.build(f'FROM busybox\n{declared}RUN echo {shown} > /seen; echo "[$TARGETOS]" >> /seen\n')
    one = {"PLATFORM": str(host), "OS": host.os, "ARCH": host.architecture, "VARIANT": host.variant}
    expected = " ".join(f"{side}{part}={value}" for side in ("BUILD", "TARGET") for part, value in one.items())
    assert await builder.shows(image, "cat /seen") == f"{expected}\n[{host.os}]\n"
    image = await builder.build('FROM busybox\nRUN echo "[$TARGETARCH]" > /seen\n')
    assert await builder.shows(image, "cat /seen") == "[]\n"
