"""swarmctl service ..."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from swarmd.swarmctl import output, progress, service_spec, tasks, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.streams import show_service_logs

_TABLE = output.Table(
    {"ID": "ID", "Name": "NAME", "Mode": "MODE", "Replicas": "REPLICAS", "Image": "IMAGE", "Ports": "PORTS"}
)


def add(verbs: Any) -> None:
    parser = verbs.add_parser("create", help="create a service", usage="%(prog)s [FLAGS] IMAGE [COMMAND] [ARG...]")
    parser.add_argument("--name", default="", help="the service's name (default: a random one)")
    service_spec.add_for_create(parser)
    _waiting(parser)
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="COMMAND")
    parser.set_defaults(run=create, parser=parser)

    parser = verbs.add_parser("update", help="change a service")
    parser.add_argument("--image", help="image to run")
    parser.add_argument("--args", metavar="LINE", help="arguments of the command")
    parser.add_argument("--force", action="store_true", help="replace the tasks even if nothing changed")
    parser.add_argument("--rollback", action="store_true", help="go back to the spec before the last change")
    service_spec.add_for_update(parser)
    _waiting(parser)
    parser.add_argument("service", metavar="SERVICE")
    parser.set_defaults(run=update, parser=parser)

    parser = verbs.add_parser("rollback", help="go back to the spec before the last change")
    _waiting(parser)
    parser.add_argument("service", metavar="SERVICE")
    parser.set_defaults(run=rollback, parser=parser)

    parser = verbs.add_parser("scale", help="set the number of tasks")
    _waiting(parser)
    parser.add_argument("wanted", nargs="+", type=_scaling, metavar="SERVICE=REPLICAS")
    parser.set_defaults(run=scale, parser=parser)

    parser = verbs.add_parser("ls", help="list services")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help="id, name, label, mode"
    )
    parser.add_argument("--format", metavar="TEMPLATE")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.set_defaults(run=listing, parser=parser)

    parser = verbs.add_parser("ps", help="list the tasks of services, and why they are not placed or ended")
    tasks.add_flags(parser)
    parser.add_argument("services", nargs="+", metavar="SERVICE")
    parser.set_defaults(run=ps, parser=parser)

    parser = verbs.add_parser("inspect", help="show services in full")
    parser.add_argument("-f", "--format", metavar="TEMPLATE")
    parser.add_argument("services", nargs="+", metavar="SERVICE")
    parser.set_defaults(run=inspect, parser=parser)

    parser = verbs.add_parser("rm", help="remove services")
    parser.add_argument("services", nargs="+", metavar="SERVICE")
    parser.set_defaults(run=remove, parser=parser)

    parser = verbs.add_parser("logs", help="show the output of a service's tasks, or of one task")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--since", help="from this time on: 2026-01-02T03:04:05Z, or 10m for ten minutes ago")
    parser.add_argument(
        "-n", "--tail", type=_tail, default="all", metavar="LINES", help="only the last lines of each task"
    )
    parser.add_argument("-t", "--timestamps", action="store_true")
    parser.add_argument("--raw", action="store_true", help="lines as they are, without their task's name")
    parser.add_argument("--no-resolve", action="store_true", help="ids instead of names")
    parser.add_argument("--no-trunc", action="store_true", help="ids in full")
    parser.add_argument("service", metavar="SERVICE|TASK")
    parser.set_defaults(run=logs, parser=parser)


def _waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait until the service has converged")
    parser.add_argument("-q", "--quiet", action="store_true", help="wait in silence")


def _scaling(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write it as SERVICE=REPLICAS")
    return name, values.count(number)


def _tail(text: str) -> str:
    return text if text == "all" else str(values.count(text))


def create(client: Client, args: argparse.Namespace) -> int:
    spec = service_spec.for_create(args)
    if not spec["Name"]:
        spec["Name"] = _random_name()
    made = client.post("/services/create", spec)
    print(made["ID"])
    return _finish(client, made["ID"], made, args, None)


def _random_name() -> str:
    import secrets

    return f"service-{secrets.token_hex(4)}"


def update(client: Client, args: argparse.Namespace) -> int:
    if args.rollback:
        return rollback(client, args)
    return _revise(client, args.service, lambda service: service_spec.for_update(service["Spec"], args), args)


def rollback(client: Client, args: argparse.Namespace) -> int:
    first: dict[str, Any] = {}

    def back(service: Any) -> Any:
        specs = {key: service.get(key) for key in ("Spec", "PreviousSpec")}
        if not specs["PreviousSpec"]:
            raise Refusal(f"service {args.service} has no earlier spec to go back to")
        if specs != (first or specs):
            raise Refusal(f"service {args.service} was updated by others meanwhile: look at it, and roll back again")
        first.update(specs)
        return specs["Spec"]

    return _revise(client, args.service, back, args, rollback="previous")


def scale(client: Client, args: argparse.Namespace) -> int:
    code = 0
    for name, replicas in args.wanted:
        code = _revise(client, name, partial(_scaled, replicas), args) or code
        if args.detach:
            print(f"{name} scaled to {replicas}")
    return code


def _scaled(replicas: int, service: Any) -> Any:
    service["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas
    return service["Spec"]


def _revise(
    client: Client, name: str, edit: Callable[[Any], Any], args: argparse.Namespace, rollback: str | None = None
) -> int:
    before, answer = client.revise("services", name, edit, rollback=rollback)
    return _finish(client, before["ID"], answer, args, before.get("UpdateStatus"))


def _finish(client: Client, id: str, answer: Any, args: argparse.Namespace, update_before: Any) -> int:
    for warning in (answer or {}).get("Warnings") or ():
        print(f"warning: {warning}", file=sys.stderr)
    return 0 if args.detach else progress.wait(client, id, quiet=args.quiet, update_before=update_before)


def listing(client: Client, args: argparse.Namespace) -> None:
    services = client.get("/services", status=True, filters=filters(args.filter))
    _TABLE.show(map(_row, sorted(services, key=lambda service: str(service["Spec"]["Name"]))), args)


def _row(service: dict[str, Any]) -> dict[str, Any]:
    spec, status = service["Spec"], service.get("ServiceStatus") or {}
    placement = spec["TaskTemplate"].get("Placement") or {}
    limit = f" (max {placement['MaxReplicas']} per node)" if placement.get("MaxReplicas") else ""
    return {
        "ID": service["ID"][:12],
        "Name": spec["Name"],
        "Mode": "replicated",
        "Replicas": f"{status.get('RunningTasks', 0)}/{status.get('DesiredTasks', 0)}{limit}",
        "Image": spec["TaskTemplate"]["ContainerSpec"]["Image"],
        "Ports": tasks.ports(
            port for port in (service.get("Endpoint") or {}).get("Ports") or () if port["PublishMode"] == "ingress"
        ),
    }


def ps(client: Client, args: argparse.Namespace) -> None:
    ids = [client.get(f"/services/{segment(name)}")["ID"] for name in args.services]
    wanted = (filters(args.filter) or {}) | {"service": ids}
    tasks.show(client, client.get("/tasks", filters=wanted), args)


def inspect(client: Client, args: argparse.Namespace) -> None:
    output.inspect([client.get(f"/services/{segment(name)}") for name in args.services], args.format)


def remove(client: Client, args: argparse.Namespace) -> int:
    code = 0
    for name in args.services:
        try:
            client.delete(f"/services/{segment(name)}")
            print(name)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code


def logs(client: Client, args: argparse.Namespace) -> None:
    show_service_logs(client, _log_path(client, args.service), args)


def _log_path(client: Client, ref: str) -> str:
    for noun in ("services", "tasks"):
        try:
            return f"/{noun}/{client.get(f'/{noun}/{segment(ref)}')['ID']}/logs"
        except Refusal as refusal:
            if refusal.status != 404:
                raise
    raise Refusal(f"no such service or task: {ref}", 404)
