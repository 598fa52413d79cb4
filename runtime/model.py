"""The runtime's values: what a container is asked to be, and what is observed of it.

Frozen, and written to the state directory as JSON (msgspec).  What was asked (`ContainerConfig`) is never mixed with
what was observed (`ContainerState`).  Durations are seconds, sizes are bytes, times are nanoseconds since the epoch.
"""

from enum import StrEnum

import msgspec


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Health(Struct, frozen=True):
    """A probe; test is ["CMD", ...], ["CMD-SHELL", line] or ["NONE"]; empty: the image's."""

    test: tuple[str, ...] = ()
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


class Limits(Struct, frozen=True):
    """0 is no limit."""

    nano_cpus: int = 0
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    pids: int = 0
    cpu_shares: int = 0


class BindMount(Struct, frozen=True, tag="bind"):
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    create_source: bool = False


class TmpfsMount(Struct, frozen=True, tag="tmpfs"):
    target: str
    size: int = 0
    mode: int = 0o1777
    read_only: bool = False


Mount = BindMount | TmpfsMount


class Ulimit(Struct, frozen=True):
    name: str
    soft: int
    hard: int


class PortMapping(Struct, frozen=True):
    """A port of this host that leads to the container. host_port 0: any free one, then reported in the state."""

    container_port: int
    host_port: int = 0
    protocol: str = "tcp"
    host_ip: str = ""


class NetworkRequest(Struct, frozen=True):
    """Attach to a network. address: CIDR given by the cluster's allocator; empty: the network's own IPAM chooses."""

    network: str
    address: str = ""
    aliases: tuple[str, ...] = ()


class Dns(Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class LogConfig(Struct, frozen=True):
    driver: str = "json-file"  # json-file, none
    max_size: int = 20 * 1024 * 1024
    max_file: int = 5


class Security(Struct, frozen=True):
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = "default"  # default, unconfined, or a JSON profile
    privileged: bool = False
    read_only_root: bool = False


class ContainerConfig(Struct, frozen=True):
    image: str
    entrypoint: tuple[str, ...] | None = None  # None: the image's
    command: tuple[str, ...] | None = None  # None: the image's, unless entrypoint is given
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    labels: dict[str, str] = {}
    tty: bool = False
    open_stdin: bool = False
    init: bool = False
    stop_signal: str = ""  # empty: the image's, else SIGTERM
    stop_timeout: float = 10.0
    health: Health | None = None
    limits: Limits = Limits()
    mounts: tuple[Mount, ...] = ()
    security: Security = Security()
    sysctls: dict[str, str] = {}
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    network_mode: str = "bridge"  # bridge, none, host; ignored for the networks named in `networks`
    networks: tuple[NetworkRequest, ...] = ()  # empty with network_mode bridge: the default bridge
    ports: tuple[PortMapping, ...] = ()
    dns: Dns = Dns()
    extra_hosts: tuple[str, ...] = ()  # "name:ip"
    log: LogConfig = LogConfig()
    restart: str = "no"  # no, on-failure[:n], always, unless-stopped; tasks of services always "no"
    auto_remove: bool = False


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
    network: str
    address: str = ""  # CIDR
    gateway: str = ""
    mac: str = ""
    interface: str = ""


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


class Event(Struct, frozen=True):
    """container: create, start, die, health_status, destroy, oom, ...; see the Engine API's /events."""

    type: str
    action: str
    id: str
    at: int
    attributes: dict[str, str] = {}


class LogEntry(Struct, frozen=True):
    """One line as the program wrote it, its newline included if there was one."""

    at: int
    stream: str  # stdout, stderr
    data: bytes
