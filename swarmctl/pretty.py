"""`inspect --pretty`: what a service or a node is, for people: a heading to a line, and what belongs to it below it."""

from __future__ import annotations

from swarmd.swarmctl import output
from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_COLUMN = 26  # where what is said begins
_NANO = 10**9


def add_flags(parser: Parser) -> None:
    parser.text("-f", "--format", metavar="TEMPLATE")
    parser.switch("--pretty", help="for people, not as JSON")


def refuse_both(args: Args) -> None:
    if args.pretty and args.format:
        raise Refusal("--pretty and --format contradict one another: leave one of them out")


def show(found: Sequence[Any], args: Args) -> None:
    """found: with --pretty what `service` or `node` made of each."""
    if not args.pretty:
        output.inspect(found, args.format)
        return
    print("\n\n".join("\n".join(_lines(one)) for one in found))


def _lines(facts: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Of texts, lists of them, and more such; what is empty is left out."""
    lines = []
    for name, said in facts.items():
        head = f"{' ' * depth}{name}:"
        if isinstance(said, dict):
            if below := _lines(said, depth + 1):
                lines += [head, *below]
        elif isinstance(said, list):
            lines += [f"{head if not at else '':<{_COLUMN}}{output.printable(text)}" for at, text in enumerate(said)]
        elif said not in ("", None):
            lines.append(f"{head:<{_COLUMN}}{output.printable(str(said))}")
    return lines


def service(found: Mapping[str, Any], networks: Sequence[str]) -> dict[str, Any]:
    """networks: the names of those it is on."""
    spec = found["Spec"]
    task = spec["TaskTemplate"]
    placement, update = task.get("Placement") or {}, found.get("UpdateStatus") or {}
    return {
        "ID": found["ID"],
        "Name": spec["Name"],
        "Labels": _pairs(spec.get("Labels")),
        "Service Mode": "Replicated",
        "Replicas": spec["Mode"]["Replicated"]["Replicas"],
        "Created": output.ago(found.get("CreatedAt", "")),
        "Updated": output.ago(found.get("UpdatedAt", "")),
        "Update Status": {
            "State": update.get("State"),
            "Started": output.ago(update.get("StartedAt", "")),
            "Completed": output.ago(update.get("CompletedAt", "")),
            "Message": update.get("Message"),
        },
        "Placement": {
            "Constraints": placement.get("Constraints"),
            "Spread": [one["Spread"]["SpreadDescriptor"] for one in placement.get("Preferences") or ()],
            "Max Replicas Per Node": placement.get("MaxReplicas"),
        },
        "Update Config": _update(spec.get("UpdateConfig") or {}),
        "Rollback Config": _update(spec.get("RollbackConfig") or {}),
        "Restart Policy": _restart(task.get("RestartPolicy") or {}),
        "Container": _container(task["ContainerSpec"]),
        "Resources": {
            f"{name}": _resources((task.get("Resources") or {}).get(name) or {}) for name in ("Reservations", "Limits")
        },
        "Networks": list(networks),
        "Endpoint Mode": (spec.get("EndpointSpec") or {}).get("Mode"),
        "Ports": [_port(port) for port in (found.get("Endpoint") or {}).get("Ports") or ()],
    }


def _update(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Parallelism": config.get("Parallelism"),
        "Delay": _span(config.get("Delay")),
        "On Failure": config.get("FailureAction"),
        "Monitoring Period": _span(config.get("Monitor")),
        "Max Failure Ratio": config.get("MaxFailureRatio"),
        "Order": config.get("Order"),
    }


def _restart(policy: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Condition": policy.get("Condition"),
        "Delay": _span(policy.get("Delay")),
        "Max Attempts": policy.get("MaxAttempts"),
        "Window": _span(policy.get("Window")),
    }


def _container(spec: Mapping[str, Any]) -> dict[str, Any]:
    health, names = spec.get("Healthcheck") or {}, spec.get("DNSConfig") or {}
    return {
        "Image": spec["Image"],
        "Entrypoint": " ".join(spec.get("Command") or ()),
        "Args": " ".join(spec.get("Args") or ()),
        "Env": spec.get("Env"),
        "Labels": _pairs(spec.get("Labels")),
        "Dir": spec.get("Dir"),
        "User": spec.get("User"),
        "Groups": spec.get("Groups"),
        "Hostname": spec.get("Hostname"),
        "Hosts": spec.get("Hosts"),
        "DNS": names.get("Nameservers"),
        "Init": "yes" if spec.get("Init") else None,
        "TTY": "yes" if spec.get("TTY") else None,
        "Read-only Root": "yes" if spec.get("ReadOnly") else None,
        "Mounts": [_mount(mount) for mount in spec.get("Mounts") or ()],
        "Added Capabilities": spec.get("CapabilityAdd"),
        "Dropped Capabilities": spec.get("CapabilityDrop"),
        "Sysctls": _pairs(spec.get("Sysctls")),
        "Ulimits": [f"{one['Name']}={one['Soft']}:{one['Hard']}" for one in spec.get("Ulimits") or ()],
        "Stop Signal": spec.get("StopSignal"),
        "Stop Grace Period": _span(spec.get("StopGracePeriod")),
        "Healthcheck": {
            "Test": " ".join(health.get("Test") or ()),
            "Interval": _span(health.get("Interval")),
            "Timeout": _span(health.get("Timeout")),
            "Retries": health.get("Retries"),
            "Start Period": _span(health.get("StartPeriod")),
            "Start Interval": _span(health.get("StartInterval")),
        },
    }


def _resources(found: Mapping[str, Any]) -> dict[str, Any]:
    cpus, memory = found.get("NanoCPUs"), found.get("MemoryBytes")
    return {
        "CPUs": f"{cpus / _NANO:g}" if cpus else None,
        "Memory": output.memory(memory) if memory else None,
        "Pids": found.get("Pids") or None,
    }


def _mount(mount: Mapping[str, Any]) -> str:
    source = f" of {mount['Source']}" if mount.get("Source") else ""
    return f"{mount['Target']}: {mount['Type']}{source}{', read-only' if mount.get('ReadOnly') else ''}"


def _port(port: Mapping[str, Any]) -> str:
    return f"{port.get('PublishedPort', 'any')}->{port['TargetPort']}/{port['Protocol']}, {port['PublishMode']}"


def _pairs(found: Mapping[str, str] | None) -> list[str]:
    return [f"{key}={value}" for key, value in sorted((found or {}).items())]


def _span(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else f"{nanoseconds / _NANO:g}s"


def node(found: Mapping[str, Any]) -> dict[str, Any]:
    said, spec, status = found["Description"], found["Spec"], found["Status"]
    manager, engine = found.get("ManagerStatus") or {}, said.get("Engine") or {}
    return {
        "ID": found["ID"],
        "Name": spec.get("Name"),
        "Labels": _pairs(spec.get("Labels")),
        "Hostname": said["Hostname"],
        "Joined": output.ago(found.get("CreatedAt", "")),
        "Status": {
            "State": status["State"].capitalize(),
            "Message": status.get("Message"),
            "Availability": spec["Availability"].capitalize(),
            "Address": status.get("Addr"),
        },
        "Manager Status": {
            "Address": manager.get("Addr"),
            "Reachability": manager.get("Reachability", "").capitalize(),
            "Leader": ("Yes" if manager.get("Leader") else "No") if manager else None,
        },
        "Platform": {
            "Operating System": said["Platform"].get("OS"),
            "Architecture": said["Platform"].get("Architecture"),
        },
        "Resources": _resources(said.get("Resources") or {}),
        "Plugins": {
            kind: ", ".join(one["Name"] for one in engine.get("Plugins") or () if one["Type"] == kind)
            for kind in sorted({one["Type"] for one in engine.get("Plugins") or ()})
        },
        "Engine Version": engine.get("EngineVersion"),
        "Engine Labels": _pairs(engine.get("Labels")),
    }
