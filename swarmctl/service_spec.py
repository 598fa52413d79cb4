"""The flags of `service create` and `service update`, and what each does to a service's spec.

A setting is one value and has the same flag in both; a collection has --X to create it, and --X-add and --X-rm to
update it.  Adding a flag is adding a line.
"""

from __future__ import annotations

from swarmd.swarmctl import values
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Spec = dict[str, Any]
    Path = tuple[str, ...]


_TASK: Path = ("TaskTemplate",)
_CONTAINER: Path = (*_TASK, "ContainerSpec")
_LIMITS: Path = (*_TASK, "Resources", "Limits")
_RESERVED: Path = (*_TASK, "Resources", "Reservations")
_RESTART: Path = (*_TASK, "RestartPolicy")
_PLACEMENT: Path = (*_TASK, "Placement")
_HEALTH: Path = (*_CONTAINER, "Healthcheck")


class Setting:
    __slots__ = ("choices", "flag", "help", "path", "short", "type")

    def __init__(
        self,
        flag: str,
        path: Path,
        type: Callable[[str], Any],
        help: str,
        choices: tuple[str, ...] = (),
        short: str = "",
    ) -> None:
        self.flag = flag
        self.path = path
        self.type = type
        self.help = help
        self.choices = choices
        self.short = short


class Switch:
    """true alone, or --flag=false."""

    __slots__ = ("flag", "help", "path", "short")

    def __init__(self, flag: str, path: Path, help: str, short: str = "") -> None:
        self.flag = flag
        self.path = path
        self.help = help
        self.short = short


class Collection:
    """`key` gives what --X-rm matches; as_map: the API wants an object instead of a list."""

    __slots__ = ("as_map", "flag", "help", "key", "path", "short", "type")

    def __init__(
        self,
        flag: str,
        path: Path,
        type: Callable[[str], Any],
        help: str,
        key: Callable[[Any], str] = str,
        as_map: bool = False,
        short: str = "",
    ) -> None:
        self.flag = flag
        self.path = path
        self.type = type
        self.help = help
        self.key = key
        self.as_map = as_map
        self.short = short


def _split(line: str) -> list[str]:
    import shlex

    return shlex.split(line)


def _rollout(prefix: str, section: str) -> tuple[Setting, ...]:
    path: Path = (section,)
    return (
        Setting(f"{prefix}-parallelism", (*path, "Parallelism"), values.count, "tasks at a time; 0: all at once"),
        Setting(f"{prefix}-delay", (*path, "Delay"), values.duration, "time between batches"),
        Setting(f"{prefix}-monitor", (*path, "Monitor"), values.duration, "how long a new task is watched for failure"),
        Setting(f"{prefix}-max-failure-ratio", (*path, "MaxFailureRatio"), values.ratio, "failures tolerated, 0 to 1"),
        Setting(f"{prefix}-order", (*path, "Order"), str, "", ("start-first", "stop-first")),
    )


SETTINGS: tuple[Setting, ...] = (
    Setting("--replicas", ("Mode", "Replicated", "Replicas"), values.count, "number of tasks"),
    Setting("--hostname", (*_CONTAINER, "Hostname"), str, "the containers' host name"),
    Setting("--user", (*_CONTAINER, "User"), str, "user or uid[:gid]", short="-u"),
    Setting("--workdir", (*_CONTAINER, "Dir"), str, "working directory", short="-w"),
    Setting("--stop-signal", (*_CONTAINER, "StopSignal"), str, "signal that asks the program to end"),
    Setting("--stop-grace-period", (*_CONTAINER, "StopGracePeriod"), values.duration, "time it has to do so"),
    Setting("--oom-score-adj", (*_CONTAINER, "OomScoreAdj"), int, "-1000 to 1000"),
    Setting("--entrypoint", (*_CONTAINER, "Command"), _split, "replaces the image's entry point"),
    Setting("--limit-cpu", (*_LIMITS, "NanoCPUs"), values.cpus, "processors at most, such as 0.5"),
    Setting("--limit-memory", (*_LIMITS, "MemoryBytes"), values.size, "memory at most, such as 512m"),
    Setting("--limit-pids", (*_LIMITS, "Pids"), values.count, "processes at most"),
    Setting("--reserve-cpu", (*_RESERVED, "NanoCPUs"), values.cpus, "processors set aside on the node"),
    Setting("--reserve-memory", (*_RESERVED, "MemoryBytes"), values.size, "memory set aside on the node"),
    Setting("--restart-condition", (*_RESTART, "Condition"), str, "", ("none", "on-failure", "any")),
    Setting("--restart-delay", (*_RESTART, "Delay"), values.duration, "time between attempts"),
    Setting(
        "--restart-max-attempts", (*_RESTART, "MaxAttempts"), values.count, "attempts before giving up; 0: no limit"
    ),
    Setting("--restart-window", (*_RESTART, "Window"), values.duration, "only failures this recent count as attempts"),
    Setting("--replicas-max-per-node", (*_PLACEMENT, "MaxReplicas"), values.count, "0: no limit"),
    Setting("--endpoint-mode", ("EndpointSpec", "Mode"), str, "", ("vip", "dnsrr")),
    Setting("--health-interval", (*_HEALTH, "Interval"), values.duration, "time between checks"),
    Setting("--health-timeout", (*_HEALTH, "Timeout"), values.duration, "time one check may take"),
    Setting("--health-retries", (*_HEALTH, "Retries"), values.count, "failures in a row that make it unhealthy"),
    Setting("--health-start-period", (*_HEALTH, "StartPeriod"), values.duration, "time to start, failures not counted"),
    Setting("--health-start-interval", (*_HEALTH, "StartInterval"), values.duration, "time between checks until then"),
    *_rollout("--update", "UpdateConfig"),
    Setting("--update-failure-action", ("UpdateConfig", "FailureAction"), str, "", ("pause", "continue", "rollback")),
    *_rollout("--rollback", "RollbackConfig"),
    Setting("--rollback-failure-action", ("RollbackConfig", "FailureAction"), str, "", ("pause", "continue")),
    Setting("--userns", (*_CONTAINER, "UsernsMode"), str, "host, auto or auto:size=N (default: auto where a node can)"),
    Setting("--log-driver", (*_TASK, "LogDriver", "Name"), str, "where its output goes"),
)

SWITCHES: tuple[Switch, ...] = (
    Switch("--tty", (*_CONTAINER, "TTY"), "give the program a terminal", short="-t"),
    Switch("--init", (*_CONTAINER, "Init"), "run an init that reaps and passes signals on"),
    Switch("--read-only", (*_CONTAINER, "ReadOnly"), "the root file system cannot be written"),
)


def _name(text: str) -> str:
    return text.partition("=")[0]


def _target_port(port: Any) -> str:
    return f"{port['TargetPort']}/{port['Protocol']}"


COLLECTIONS: tuple[Collection, ...] = (
    Collection("--env", (*_CONTAINER, "Env"), values.env, "NAME=value", _name, short="-e"),
    Collection("--label", ("Labels",), values.pair, "key=value, on the service", as_map=True, short="-l"),
    Collection("--container-label", (*_CONTAINER, "Labels"), values.pair, "key=value, on its containers", as_map=True),
    Collection("--constraint", (*_PLACEMENT, "Constraints"), str, "such as node.role==worker"),
    Collection("--placement-pref", (*_PLACEMENT, "Preferences"), values.preference, "such as spread=node.labels.zone",
               lambda pref: str(pref["Spread"]["SpreadDescriptor"])),
    Collection("--publish", ("EndpointSpec", "Ports"), values.published, "such as 8080:80", _target_port, short="-p"),
    Collection("--mount", (*_CONTAINER, "Mounts"), values.mount, "such as type=bind,src=/a,dst=/b,ro",
               lambda mount: str(mount["Target"])),
    Collection("--network", (*_TASK, "Networks"), values.network, "network to attach to",
               lambda net: str(net["Target"])),
    Collection("--dns", (*_CONTAINER, "DNSConfig", "Nameservers"), str, "name server"),
    Collection("--dns-option", (*_CONTAINER, "DNSConfig", "Options"), str, "resolver option"),
    Collection("--dns-search", (*_CONTAINER, "DNSConfig", "Search"), str, "search domain"),
    Collection("--group", (*_CONTAINER, "Groups"), str, "further group of the user"),
    Collection("--host", (*_CONTAINER, "Hosts"), values.extra_host, "name:address, for /etc/hosts"),
    Collection("--sysctl", (*_CONTAINER, "Sysctls"), values.pair, "name=value", as_map=True),
    Collection("--ulimit", (*_CONTAINER, "Ulimits"), values.ulimit, "such as nofile=1024:2048",
               lambda limit: str(limit["Name"])),
    Collection("--log-opt", (*_TASK, "LogDriver", "Options"), values.pair, "key=value", as_map=True),
)  # fmt: skip


# ---------------------------------------------------------------- flags


def add_common(parser: Parser) -> None:
    for setting in SETTINGS:
        names = (setting.short, setting.flag) if setting.short else (setting.flag,)
        metavar = "|".join(setting.choices) or "VALUE"
        parser.text(*names, type=setting.type, help=setting.help, metavar=metavar, choices=setting.choices)
    for switch in SWITCHES:
        names = (switch.short, switch.flag) if switch.short else (switch.flag,)
        # None: neither said nor taken back, so an update leaves it as it is.
        parser.switch(*names, help=f"{switch.help}; or {switch.flag}=false", default=None)
    parser.text("--health-cmd", metavar="LINE", help="shell line that succeeds while the program is well")
    parser.switch("--no-healthcheck", help="run no check, whatever the image says")
    parser.several("--cap-add", metavar="CAPABILITY")
    parser.several("--cap-drop", metavar="CAPABILITY")


def add_for_create(parser: Parser) -> None:
    add_common(parser)
    for one in COLLECTIONS:
        names = (one.short, one.flag) if one.short else (one.flag,)
        parser.several(*names, type=one.type, metavar="VALUE", help=one.help)
    parser.several("--env-file", type=values.env_file, metavar="FILE")


def add_for_update(parser: Parser) -> None:
    add_common(parser)
    for one in COLLECTIONS:
        if one.flag == "--log-opt":  # replaced as a whole, as in Docker
            parser.several(one.flag, type=one.type, metavar="VALUE", help=one.help)
            continue
        parser.several(f"{one.flag}-add", type=one.type, metavar="VALUE", help=one.help)
        parser.several(f"{one.flag}-rm", metavar="NAME")


# ---------------------------------------------------------------- to the spec


def for_create(args: Args) -> Spec:
    spec: Spec = {"Name": args.name, "Mode": {"Replicated": {}}}
    _put(spec, (*_CONTAINER, "Image"), args.image)
    if args.args:
        _put(spec, (*_CONTAINER, "Args"), args.args)
    apply_common(spec, args)
    for one in COLLECTIONS:
        added = _value(args, one.flag)
        if one.flag == "--env":
            added = [*(line for file in args.env_file for line in file), *added]
        _collect(spec, one, added, ())
    return spec


def for_update(spec: Spec, args: Args) -> Spec:
    """Edit the spec that the service has."""
    apply_common(spec, args)
    for one in COLLECTIONS:
        if one.flag == "--log-opt":
            if _value(args, one.flag):
                _put(spec, one.path, dict(_value(args, one.flag)))
            continue
        _collect(spec, one, _value(args, f"{one.flag}-add"), _value(args, f"{one.flag}-rm"))
    if args.image:
        _put(spec, (*_CONTAINER, "Image"), args.image)
    if args.args is not None:
        _put(spec, (*_CONTAINER, "Args"), _split(args.args))
    if args.force:
        _put(spec, (*_TASK, "ForceUpdate"), spec["TaskTemplate"].get("ForceUpdate", 0) + 1)
    return spec


def apply_common(spec: Spec, args: Args) -> None:
    both: tuple[Setting | Switch, ...] = (*SETTINGS, *SWITCHES)
    for one in both:
        value = _value(args, one.flag)
        if value is not None:
            _put(spec, one.path, value)
    if args.no_healthcheck:
        _put(spec, (*_HEALTH, "Test"), ["NONE"])
    elif args.health_cmd:
        _put(spec, (*_HEALTH, "Test"), ["CMD-SHELL", args.health_cmd])
    for flag, field, opposite in (
        ("cap_add", "CapabilityAdd", "CapabilityDrop"),
        ("cap_drop", "CapabilityDrop", "CapabilityAdd"),
    ):
        names = [name.upper() for name in getattr(args, flag)]
        if names:
            _put(spec, (*_CONTAINER, field), sorted({*_get(spec, (*_CONTAINER, field), []), *names}))
            left = [name for name in _get(spec, (*_CONTAINER, opposite), []) if name not in names]
            _put(spec, (*_CONTAINER, opposite), left)


def _collect(spec: Spec, one: Collection, added: Any, removed: Any) -> None:
    if not added and not removed:
        return
    if one.as_map:
        kept = {key: value for key, value in _get(spec, one.path, {}).items() if key not in removed}
        _put(spec, one.path, kept | dict(added))
        return
    gone = {*removed, *map(one.key, added)}
    _put(spec, one.path, [item for item in _get(spec, one.path, []) if one.key(item) not in gone] + list(added))


def _value(args: Args, flag: str) -> Any:
    return getattr(args, flag.lstrip("-").replace("-", "_"))


def _put(spec: Spec, path: Path, value: Any) -> None:
    for name in path[:-1]:
        spec = spec.setdefault(name, {})
    spec[path[-1]] = value


def _get(spec: Spec, path: Path, default: Any) -> Any:
    for name in path:
        spec = spec.get(name) or {}
    return spec or default
