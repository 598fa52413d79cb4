"""The runtime's values: what a container is asked to be, and what is observed of it.

Frozen, and written to the state directory as JSON (msgspec).  What was asked (`ContainerConfig`) is never mixed with
what was observed (`ContainerState`).  Durations are seconds, sizes are bytes, times are nanoseconds since the epoch.
"""

from enum import StrEnum

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Health(Struct, frozen=True):
    """A probe; in a container's configuration, nothing and 0 stand for the image's, or for these defaults.

    test is ["CMD", ...], ["CMD-SHELL", line] or ["NONE"]; or, made from the container's network without a program in
    it, ["HTTP", url], ["TCP", "tcp://:port"] or ["GRPC", "grpc://:port/service"], where no host means the container.
    """

    test: tuple[str, ...] = ()
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


class DeviceLimit(Struct, frozen=True):
    """A weight (10 to 1000), or a rate in bytes or operations per second, of one block device."""

    path: str
    value: int


class Limits(Struct, frozen=True):
    """What a cgroup limits; 0 is no limit.  Sizes in bytes, times in microseconds unless a name says otherwise."""

    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0  # -1: none
    cpu_shares: int = 0
    realtime_period: int = 0
    realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0  # memory and swap together; -1: no limit
    swappiness: int | None = None  # 0 to 100; None: the host's
    oom_kill_disable: bool = False
    pids: int = 0
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceLimit, ...] = ()
    blkio_read_bps: tuple[DeviceLimit, ...] = ()
    blkio_write_bps: tuple[DeviceLimit, ...] = ()
    blkio_read_iops: tuple[DeviceLimit, ...] = ()
    blkio_write_iops: tuple[DeviceLimit, ...] = ()


class DeviceRule(Struct, frozen=True):
    """What a cgroup lets be done with device nodes. kind: a (all), b or c; None: any number; access: of "rwm"."""

    kind: str
    major: int | None
    minor: int | None
    access: str
    allow: bool = True


class Device(Struct, frozen=True):
    """A device node of this host, or each of those below a directory of it, made available in the container."""

    source: str
    target: str
    access: str = "rwm"


class BindMount(Struct, frozen=True, tag="bind"):
    """recursive: with what is mounted below the source; read_only_recursive: those are read-only too."""

    source: str
    target: str
    read_only: bool = False
    read_only_recursive: bool = True
    propagation: str = "rprivate"
    recursive: bool = True
    create_source: bool = False


class TmpfsMount(Struct, frozen=True, tag="tmpfs"):
    """options: further ones of tmpfs(5) and of the mount, such as noexec or uid=1000."""

    target: str
    size: int = 0
    mode: int = 0o1777
    read_only: bool = False
    options: tuple[str, ...] = ()


class ImageMount(Struct, frozen=True, tag="image"):
    """An image's files, read-only; subpath: a directory in it."""

    image: str
    target: str
    subpath: str = ""
    read_only: bool = True


Mount = BindMount | TmpfsMount | ImageMount


class Ulimit(Struct, frozen=True):
    name: str
    soft: int
    hard: int


class PortMapping(Struct, frozen=True):
    """A port of this host that leads to the container. host_port 0: any free one, then reported in the state.

    host_port_end: the last of a range that begins with host_port, of which any free one will do; 0: no range.
    """

    container_port: int
    host_port: int = 0
    host_port_end: int = 0
    protocol: str = "tcp"
    host_ip: str = ""


class NetworkRequest(Struct, frozen=True):
    """Attach to a network. address: CIDR given by the cluster's allocator, or an address the user wants; empty: the
    network's own IPAM chooses."""

    network: str
    address: str = ""
    aliases: tuple[str, ...] = ()
    mac: str = ""


class Link(Struct, frozen=True):
    """Another container, by id, and the name that it has for this one alone."""

    container: str
    alias: str


class Dns(Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class LogConfig(Struct, frozen=True):
    """local is json-file with rotated files compressed, unless it is told not to."""

    driver: str = "json-file"  # json-file, local, none
    max_size: int = 20 * 1024 * 1024
    max_file: int = 5
    compress: bool = False  # files that have been rotated
    options: dict[str, str] = {}  # the driver's others, checked, as they were written


class Namespaces(Struct, frozen=True):
    """Whose namespaces the program is in: private, host, or container:ID for another container's.

    user: "" or host; auto, or auto:size=N: a range of ids of its own.  monotonic, boottime: seconds by which those two
    clocks are ahead inside (time_namespaces(7)); 0 for both: the host's.
    """

    pid: str = "private"
    ipc: str = "private"  # also none, shareable
    uts: str = "private"  # private, host
    cgroup: str = "private"  # private, host
    user: str = ""
    monotonic: float = 0.0
    boottime: float = 0.0


class Security(Struct, frozen=True):
    """masked_paths, readonly_paths: None for the usual ones."""

    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = "default"  # default, unconfined, or a JSON profile
    apparmor: str = ""  # a profile loaded on the host, or unconfined; empty: the daemon's choice
    privileged: bool = False
    read_only_root: bool = False
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None


class ContainerConfig(Struct, frozen=True):
    image: str
    entrypoint: tuple[str, ...] | None = None  # None: the image's
    command: tuple[str, ...] | None = None  # None: the image's, unless entrypoint is given
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)  # height and width of its terminal when it starts
    open_stdin: bool = False
    stdin_once: bool = False  # the first client that attaches to stdin and ends it, ends it for the program
    init: bool = False
    stop_signal: str = ""  # empty: the image's, else SIGTERM
    stop_timeout: float = 10.0
    health: Health | None = None
    limits: Limits = Limits()
    mounts: tuple[Mount, ...] = ()
    shm_size: int = 0  # bytes of /dev/shm; 0: 64 MiB
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()  # beside those of `devices`
    cdi_devices: tuple[str, ...] = ()  # vendor/class=name, see the Container Device Interface
    namespaces: Namespaces = Namespaces()
    security: Security = Security()
    sysctls: dict[str, str] = {}
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    network_mode: str = "bridge"  # bridge, none, host, container:ID; ignored for the networks named in `networks`
    networks: tuple[NetworkRequest, ...] = ()  # empty with network_mode bridge: the default bridge
    exposed: tuple[str, ...] = ()  # "80/tcp": ports that the container says it has
    links: tuple[Link, ...] = ()  # on the networks that both are on
    publish_all: bool = False  # each of those, and of the image's, on a port of this host
    ports: tuple[PortMapping, ...] = ()
    dns: Dns = Dns()
    extra_hosts: tuple[str, ...] = ()  # "name:ip"
    log: LogConfig = LogConfig()
    restart: str = "no"  # no, on-failure[:n], always, unless-stopped; tasks of services always "no"
    auto_remove: bool = False
    runtime: str = ""  # empty: ours; runc, crun, or the path of a program with the OCI runtime command line
    annotations: dict[str, str] = {}


class Phase(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    DEAD = "dead"  # its shim is gone without a record of the exit


class HealthState(StrEnum):
    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class ProbeResult(Struct, frozen=True):
    start: int
    end: int
    exit_code: int
    output: str


class Exit(Struct, frozen=True):
    """How the program ended. code is 128+n when a signal ended it. error: why, when it was not the program's doing."""

    code: int
    at: int
    oom_killed: bool = False
    error: str = ""


class NetworkState(Struct, frozen=True):
    """A container's interface on a network, which is known by its name; id, driver: the network's too."""

    network: str
    address: str = ""  # CIDR
    gateway: str = ""
    mac: str = ""
    interface: str = ""
    id: str = ""
    driver: str = ""


class ContainerState(Struct, frozen=True):
    id: str
    name: str
    config: ContainerConfig
    image_id: str
    phase: Phase
    created: int
    pid: int = 0
    started: int = 0
    exit: Exit | None = None
    health: HealthState = HealthState.NONE
    health_failing_streak: int = 0
    health_log: tuple[ProbeResult, ...] = ()  # newest last, five kept
    networks: tuple[NetworkState, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    restart_count: int = 0
    paused: bool = False  # running, but held where it is
    restarting: bool = False  # not running, and about to be started again by its policy


class Event(Struct, frozen=True):
    """container: create, start, die, health_status, destroy, oom, ...; see the Engine API's /events."""

    type: str
    action: str
    id: str
    at: int
    attributes: dict[str, str] = {}


class LogEntry(Struct, frozen=True, gc=False):
    """One line as the program wrote it, its newline included if there was one."""

    at: int
    stream: str  # stdout, stderr
    data: bytes
    attributes: dict[str, str] | None = None  # the labels and variables that its log was told to add, if any
