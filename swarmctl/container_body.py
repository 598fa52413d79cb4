"""What the flags of `run` and `create` say, as the body of POST /containers/create."""

from __future__ import annotations

from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.container_flags import FIELDS, SWITCHES
from swarmd.swarmctl.parser import Args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Body = dict[str, Any]


def body(args: Args, *, detach: bool) -> Body:
    """The whole body.  Refusal (code 125) where flags contradict each other, as in Docker's CLI."""
    config: Body = {"Image": args.image}
    host: Body = {}
    for field in FIELDS:
        value = getattr(args, field.dest)
        if value is not None and value != []:
            (host if field.host else config)[field.name] = dict(value) if field.pairs else value
    for switch in SWITCHES:
        if getattr(args, switch.dest):
            (host if switch.host else config)[switch.name] = True
    _streams(config, args, detach)
    _program(config, args)
    _ports(config, host, args)
    _files(config, host, args)
    _devices(host, args)
    _security(host, args)
    _logs(host, args)
    _health(config, args)
    if args.restart:
        if args.rm and args.restart["Name"] != "no":
            raise _conflict("--restart", "--rm")
        host["RestartPolicy"] = args.restart
    return {**config, "HostConfig": host, **_networks(host, args)}


def _conflict(one: str, other: str) -> Refusal:
    return Refusal(f"{one} and {other} contradict each other: give one of them", code=125)


def _streams(config: Body, args: Args, detach: bool) -> None:
    if detach:
        if args.attach:
            raise _conflict("--attach", "--detach")
        return
    for stream in ("Stdin", "Stdout", "Stderr"):
        given = stream.lower() in args.attach
        config[f"Attach{stream}"] = given if args.attach else stream != "Stdin" or args.interactive
    # Its input ends with the one who gives it.
    config["StdinOnce"] = bool(args.interactive and config["AttachStdin"])


def _program(config: Body, args: Args) -> None:
    if args.args:
        config["Cmd"] = args.args
    if args.entrypoint is not None:
        config["Entrypoint"] = [args.entrypoint]
    env = [*(line for file in args.env_file for line in file), *args.env]
    if env:
        config["Env"] = env
    labels = [*(pair for file in args.label_file for pair in file), *args.label]
    if labels:
        config["Labels"] = dict(labels)


def _ports(config: Body, host: Body, args: Args) -> None:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port, binding in (one for ports in args.publish for one in ports):
        bindings.setdefault(port, []).append(binding)
    exposed = dict.fromkeys([*(port for ports in args.expose for port in ports), *bindings])
    if exposed:
        config["ExposedPorts"] = {port: {} for port in exposed}
    if bindings:
        host["PortBindings"] = bindings


def _files(config: Body, host: Body, args: Args) -> None:
    binds = [text for text in args.volume if ":" in text]
    if binds:
        host["Binds"] = binds
    own = [text for text in args.volume if ":" not in text]
    if own:
        config["Volumes"] = {path: {} for path in own}


def _devices(host: Body, args: Args) -> None:
    plain = [device for device in args.device if "PathOnHost" in device]
    if plain:
        host["Devices"] = plain
    named = [name for device in args.device for name in device.get("DeviceIDs", ())]
    requests = [{"Driver": "cdi", "DeviceIDs": named}] if named else []
    if args.gpus:
        requests.append(args.gpus)
    if requests:
        host["DeviceRequests"] = requests


def _security(host: Body, args: Args) -> None:
    options = [option for option in args.security_opt if option != "systempaths=unconfined"]
    if options != args.security_opt:
        host["MaskedPaths"], host["ReadonlyPaths"] = [], []
    if options:
        host["SecurityOpt"] = options


def _logs(host: Body, args: Args) -> None:
    if args.log_driver == "none" and args.log_opt:
        raise Refusal("--log-driver none has no options: leave --log-opt out", code=125)
    if args.log_driver or args.log_opt:
        host["LogConfig"] = {"Type": args.log_driver, "Config": dict(args.log_opt)}


def _health(config: Body, args: Args) -> None:
    fields = {
        "Interval": args.health_interval,
        "Timeout": args.health_timeout,
        "StartPeriod": args.health_start_period,
        "StartInterval": args.health_start_interval,
        "Retries": args.health_retries,
    }
    check: Body = {name: value for name, value in fields.items() if value is not None}
    if args.health_cmd and args.health_probe:
        raise _conflict("--health-cmd", "--health-probe")
    if args.health_cmd:
        check["Test"] = ["CMD-SHELL", args.health_cmd]
    if args.health_probe:
        check["Test"] = args.health_probe
    if args.no_healthcheck:
        if check:
            raise _conflict("--no-healthcheck", "--health-...")
        check["Test"] = ["NONE"]
    if check:
        config["Healthcheck"] = check


def _networks(host: Body, args: Args) -> Body:
    """The first network has what the flags say of addresses and names."""
    networks = [dict(network) for network in args.network]
    first: Body = networks[0] if networks else {"name": "default"}
    ipam: Body = {"IPv4Address": args.ip, "IPv6Address": args.ip6, "LinkLocalIPs": args.link_local_ip}
    for name, value in {"Aliases": args.network_alias, "MacAddress": args.mac_address, "Links": args.link}.items():
        if value:
            if name in first:
                raise Refusal(f"network {first['name']}: {name} is given twice, in --network and in a flag", code=125)
            first[name] = value
    ipam = {name: value for name, value in ipam.items() if value}
    if ipam:
        first["IPAMConfig"] = {**first.get("IPAMConfig", {}), **ipam}
    if networks:
        host["NetworkMode"] = first["name"]
    if args.link:
        host["Links"] = args.link
    if len(networks) < 2 and len(first) == 1:
        return {}
    names = [network["name"] for network in networks]
    if len({*names}) < len(names):
        raise Refusal(f"network {max(names, key=names.count)} is given twice", code=125)
    endpoints = {
        network["name"]: {key: value for key, value in network.items() if key != "name"}
        for network in (networks or [first])
    }
    return {"NetworkingConfig": {"EndpointsConfig": endpoints}}
