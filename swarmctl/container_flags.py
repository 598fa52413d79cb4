"""The flags that `run` and `create` share, and for those that are one field of the API, where its value goes.

Adding such a flag is adding a line; what takes more than a line is put together in container_body.py.
"""

from __future__ import annotations

from swarmd.swarmctl import container_values as read
from swarmd.swarmctl import values
from swarmd.swarmctl.parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WINDOWS = "it is for Windows containers"
ABSENT = {
    "--cpu-count": WINDOWS,
    "--cpu-percent": WINDOWS,
    "--io-maxbandwidth": WINDOWS,
    "--io-maxiops": WINDOWS,
    "--isolation": WINDOWS,
    "--kernel-memory": "Linux has no such limit any more; --memory counts the kernel's memory too",
    "--disable-content-trust": "images are checked by their digests; there is no content trust to disable",
    "--use-api-socket": "who has the daemon's socket is root here; mount it with --volume if that is meant",
}


class Field:
    """host: in HostConfig, else in Config; many: a list; pairs: key=value into an object."""

    __slots__ = ("flags", "help", "host", "many", "metavar", "name", "pairs", "type")

    def __init__(
        self,
        flags: tuple[str, ...],
        name: str,
        help: str,
        type: Callable[[str], Any] = str,
        host: bool = True,
        many: bool = False,
        pairs: bool = False,
        metavar: str = "TEXT",
    ) -> None:
        self.flags = flags
        self.name = name
        self.help = help
        self.type = type
        self.host = host
        self.many = many
        self.pairs = pairs
        self.metavar = metavar

    @property
    def dest(self) -> str:
        return self.flags[-1].lstrip("-").replace("-", "_")


class Switch:
    __slots__ = ("flags", "help", "host", "name")

    def __init__(self, flags: tuple[str, ...], name: str, help: str, host: bool = True) -> None:
        self.flags = flags
        self.name = name
        self.help = help
        self.host = host

    @property
    def dest(self) -> str:
        return self.flags[-1].lstrip("-").replace("-", "_")


def _mount(text: str) -> Any:
    from swarmd.swarmctl.mounts import mount

    return mount(text)


def _number(flag: str, name: str, help: str) -> Field:
    return Field((flag,), name, help, int, metavar="NUMBER")


FIELDS: tuple[Field, ...] = (
    # the program
    Field(("-h", "--hostname"), "Hostname", "its host name", host=False, metavar="NAME"),
    Field(("--domainname",), "Domainname", "its NIS domain", host=False, metavar="NAME"),
    Field(("-u", "--user"), "User", "user or uid[:gid]", host=False, metavar="USER"),
    Field(("-w", "--workdir"), "WorkingDir", "working directory", host=False, metavar="DIRECTORY"),
    Field(("--stop-signal",), "StopSignal", "signal that asks it to end", host=False, metavar="SIGNAL"),
    Field(("--stop-timeout",), "StopTimeout", "seconds it has to do so; -1: all it wants",
          int, host=False, metavar="SECONDS"),
    # limits
    Field(("-m", "--memory"), "Memory", "memory at most, such as 512m", values.size, metavar="SIZE"),
    Field(("--memory-reservation",), "MemoryReservation", "memory it keeps when it is short",
          values.size, metavar="SIZE"),
    Field(("--memory-swap",), "MemorySwap", "memory and swap together; -1: swap without limit",
          read.swap, metavar="SIZE"),
    _number("--memory-swappiness", "MemorySwappiness", "0 to 100"),
    Field(("--cpus",), "NanoCpus", "processors at most, such as 0.5", values.cpus, metavar="NUMBER"),
    Field(("-c", "--cpu-shares"), "CpuShares", "weight beside others", int, metavar="NUMBER"),
    _number("--cpu-period", "CpuPeriod", "microseconds of a period of --cpu-quota"),
    _number("--cpu-quota", "CpuQuota", "microseconds in each period"),
    _number("--cpu-rt-period", "CpuRealtimePeriod", "microseconds of a period of --cpu-rt-runtime"),
    _number("--cpu-rt-runtime", "CpuRealtimeRuntime", "microseconds of real-time work in each period"),
    Field(("--cpuset-cpus",), "CpusetCpus", "processors it may use: 0-2,4", metavar="LIST"),
    Field(("--cpuset-mems",), "CpusetMems", "memory nodes it may use", metavar="LIST"),
    _number("--pids-limit", "PidsLimit", "processes at most; -1: no limit"),
    Field(("--ulimit",), "Ulimits", "such as nofile=1024:2048", values.ulimit, many=True),
    Field(("--shm-size",), "ShmSize", "size of /dev/shm", values.size, metavar="SIZE"),
    _number("--oom-score-adj", "OomScoreAdj", "-1000 to 1000: who is killed first when memory runs out"),
    _number("--blkio-weight", "BlkioWeight", "10 to 1000: weight of its disk access"),
    Field(("--blkio-weight-device",), "BlkioWeightDevice", "/dev/sda:200", read.path_weight, many=True),
    Field(("--device-read-bps",), "BlkioDeviceReadBps", "/dev/sda:1mb a second", read.path_bytes, many=True),
    Field(("--device-write-bps",), "BlkioDeviceWriteBps", "/dev/sda:1mb a second", read.path_bytes, many=True),
    Field(("--device-read-iops",), "BlkioDeviceReadIOps", "/dev/sda:1000 a second", read.path_count, many=True),
    Field(("--device-write-iops",), "BlkioDeviceWriteIOps", "/dev/sda:1000 a second", read.path_count, many=True),
    # what it may do, and what it is cut off from
    Field(("--cap-add",), "CapAdd", "capability it gets besides", many=True, metavar="CAPABILITY"),
    Field(("--cap-drop",), "CapDrop", "capability it does not get", many=True, metavar="CAPABILITY"),
    Field(("--group-add",), "GroupAdd", "further group of the user", many=True, metavar="GROUP"),
    Field(("--device-cgroup-rule",), "DeviceCgroupRules", "such as 'c 42:* rmw'", many=True, metavar="RULE"),
    Field(("--cgroup-parent",), "CgroupParent", "cgroup to be in", metavar="PATH"),
    Field(("--cgroupns",), "CgroupnsMode", "cgroup namespace: host or private", metavar="MODE"),
    Field(("--ipc",), "IpcMode", "none, private, shareable, host or container:NAME", metavar="MODE"),
    Field(("--pid",), "PidMode", "host or container:NAME", metavar="MODE"),
    Field(("--uts",), "UTSMode", "host", metavar="MODE"),
    Field(("--userns",), "UsernsMode", "auto, auto:size=N (ids of its own), or host", metavar="MODE"),
    Field(("--runtime",), "Runtime", "OCI runtime", metavar="NAME"),
    Field(("--sysctl",), "Sysctls", "name=value", values.pair, pairs=True),
    Field(("--annotation",), "Annotations", "key=value, for the runtime", values.pair, pairs=True),
    Field(("--storage-opt",), "StorageOpt", "key=value", values.pair, pairs=True),
    Field(("--time-offset",), "TimeOffsets", "monotonic=DURATION or boottime=DURATION added to its clock",
          read.time_offset, pairs=True),
    # files
    Field(("--mount",), "Mounts", "type=bind|volume|tmpfs|image,src=..,dst=..", _mount, many=True),
    Field(("--tmpfs",), "Tmpfs", "/path or /path:options", read.tmpfs, pairs=True, metavar="PATH"),
    Field(("--volumes-from",), "VolumesFrom", "container whose volumes it has too", many=True, metavar="CONTAINER"),
    Field(("--volume-driver",), "VolumeDriver", "of the volumes that are made for it", metavar="NAME"),
    # network
    Field(("--add-host",), "ExtraHosts", "name:address, for /etc/hosts", read.host_entry, many=True),
    Field(("--dns",), "Dns", "name server", many=True, metavar="ADDRESS"),
    Field(("--dns-option",), "DnsOptions", "resolver option", many=True),
    Field(("--dns-search",), "DnsSearch", "search domain", many=True, metavar="DOMAIN"),
)  # fmt: skip

SWITCHES: tuple[Switch, ...] = (
    Switch(("-t", "--tty"), "Tty", "give it a terminal", host=False),
    Switch(("-i", "--interactive"), "OpenStdin", "keep its standard input open", host=False),
    Switch(("--init",), "Init", "an init that reaps, and passes signals on"),
    Switch(("--privileged",), "Privileged", "all capabilities and devices"),
    Switch(("--read-only",), "ReadonlyRootfs", "its root file system cannot be written"),
    Switch(("--oom-kill-disable",), "OomKillDisable", "wait for memory instead of being killed"),
    Switch(("-P", "--publish-all"), "PublishAllPorts", "publish every exposed port on a free one"),
    Switch(("--rm",), "AutoRemove", "remove it once it has ended"),
)


def add(parser: Parser) -> None:
    for field in FIELDS:
        take = parser.several if field.many or field.pairs else parser.text
        take(*field.flags, type=field.type, help=field.help, metavar=field.metavar)
    for switch in SWITCHES:
        parser.switch(*switch.flags, help=switch.help)
    parser.text("--name", default="", help="its name (default: a random one)", metavar="NAME")
    parser.several("-a", "--attach", type=read.attached, help="stdin, stdout or stderr", metavar="STREAM")
    parser.several("-e", "--env", type=values.env, help="NAME=value, or NAME with this shell's value")
    parser.several("--env-file", type=values.env_file, help="file of them", metavar="FILE")
    parser.several("-l", "--label", type=values.pair, help="key=value")
    parser.several("--label-file", type=read.label_file, help="file of them", metavar="FILE")
    parser.text("--entrypoint", help="replaces the image's entry point; '' for none", metavar="PROGRAM")
    parser.several("--expose", type=read.exposed, help="port or ports, of containers' networks", metavar="PORT")
    parser.several("-p", "--publish", type=read.published, help="[address:]port:port[/protocol]", metavar="PORT")
    parser.several(
        "-v", "--volume", type=read.bind, help="/here:/inside[:ro], name:/inside or /inside", metavar="VOLUME"
    )
    parser.several("--device", type=read.device, help="/dev/here[:/dev/inside][:rwm], or a CDI name", metavar="DEVICE")
    parser.text("--gpus", type=read.gpus, help="all, a number, or device=0,1", metavar="GPUS")
    parser.several("--security-opt", type=read.security, help="no-new-privileges, seccomp=FILE, apparmor=NAME ...")
    parser.text("--log-driver", default="", help="where its output goes", metavar="NAME")
    parser.several("--log-opt", type=values.pair, help="key=value")
    parser.text(
        "--restart", type=read.restart, help="no, always, unless-stopped, on-failure[:RETRIES]", metavar="POLICY"
    )
    parser.text("--cidfile", default="", help="file to write its id to", metavar="FILE")
    parser.text("--platform", help="os/architecture[/variant] of the image")
    parser.text(
        "--pull",
        choices=("missing", "always", "never"),
        default="missing",
        help="when to pull the image",
        metavar="WHEN",
    )
    parser.switch("-q", "--quiet", help="say nothing of the pulling")
    _add_network(parser)
    _add_health(parser)
    parser.lacks(ABSENT)


def _add_network(parser: Parser) -> None:
    parser.several(
        "--network", "--net", type=read.network, help="its name, or name=..,alias=..,ip=..", metavar="NETWORK"
    )
    parser.several("--network-alias", "--net-alias", help="further name on the network", metavar="NAME")
    parser.text("--ip", help="its IPv4 address on the network", metavar="ADDRESS")
    parser.text("--ip6", help="its IPv6 address on the network", metavar="ADDRESS")
    parser.several("--link-local-ip", help="link-local address", metavar="ADDRESS")
    parser.text("--mac-address", help="its MAC address on the network", metavar="ADDRESS")
    parser.several("--link", help="container[:alias] to be known under a name", metavar="CONTAINER")


def _add_health(parser: Parser) -> None:
    parser.text("--health-cmd", help="shell line that succeeds while the program is well", metavar="LINE")
    parser.text("--health-probe", type=read.health_probe, metavar="URL",
                help="without a program: http://:8080/path, tcp://:5432, grpc://:50051/service")  # fmt: skip
    for name, text in (
        ("interval", "time between checks"),
        ("timeout", "time one check may take"),
        ("start-period", "time to start, failures not counted"),
        ("start-interval", "time between checks until then"),
    ):
        parser.text(f"--health-{name}", type=values.duration, help=text, metavar="DURATION")
    parser.text("--health-retries", type=values.count, help="failures in a row that make it unhealthy", metavar="COUNT")
    parser.switch("--no-healthcheck", help="run no check, whatever the image says")
