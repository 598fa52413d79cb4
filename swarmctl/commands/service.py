"""swarmctl service ..."""

from __future__ import annotations

import sys

from swarmd.swarmctl import output, pretty, progress, service_spec, tasks, values
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, BadValue, Parser
from swarmd.swarmctl.references import domain
from swarmd.swarmctl.streams import show_service_logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TABLE = output.Table(
    {"ID": "ID", "Name": "NAME", "Mode": "MODE", "Replicas": "REPLICAS", "Image": "IMAGE", "Ports": "PORTS"}
)


def add_create(parser: Parser) -> None:
    parser.text("--name", default="", help="the service's name (default: a random one)")
    service_spec.add_for_create(parser)
    _resolution(parser)
    _waiting(parser)
    parser.argument("image", "IMAGE")
    parser.command()
    parser.set_defaults(run=create)


def add_update(parser: Parser) -> None:
    parser.text("--image", help="image to run")
    parser.text("--args", metavar="LINE", help="arguments of the command")
    parser.switch("--force", help="replace the tasks even if nothing changed")
    parser.switch("--rollback", help="go back to the spec before the last change")
    service_spec.add_for_update(parser)
    _resolution(parser)
    _waiting(parser)
    parser.argument("service", "SERVICE")
    parser.set_defaults(run=update)


def add_rollback(parser: Parser) -> None:
    _waiting(parser)
    parser.argument("service", "SERVICE")
    parser.set_defaults(run=rollback)


def add_scale(parser: Parser) -> None:
    _waiting(parser)
    parser.argument("wanted", "SERVICE=REPLICAS", "+", type=_scaling)
    parser.set_defaults(run=scale)


def add_ls(parser: Parser) -> None:
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="id, name, label, mode")
    parser.text("--format", metavar="TEMPLATE")
    parser.switch("-q", "--quiet", help="ids only")
    parser.set_defaults(run=listing)


def add_ps(parser: Parser) -> None:
    tasks.add_flags(parser)
    parser.argument("services", "SERVICE", "+")
    parser.set_defaults(run=ps)


def add_inspect(parser: Parser) -> None:
    pretty.add_flags(parser)
    parser.argument("services", "SERVICE", "+")
    parser.set_defaults(run=inspect)


def add_rm(parser: Parser) -> None:
    parser.argument("services", "SERVICE", "+")
    parser.set_defaults(run=remove)


def add_logs(parser: Parser) -> None:
    parser.switch("--details", help="the attributes that the log driver was told to add")
    parser.switch("-f", "--follow", help="go on with what comes")
    parser.text("--since", help="from this time on: 2026-01-02T03:04:05Z, or 10m for ten minutes ago")
    parser.text("-n", "--tail", type=_tail, default="all", metavar="LINES", help="only the last lines of each task")
    parser.switch("-t", "--timestamps", help="each line's time before it")
    parser.switch("--raw", help="lines as they are, without their task's name")
    parser.switch("--no-resolve", help="ids instead of names")
    parser.switch("--no-task-ids", help="the tasks' names alone")
    parser.switch("--no-trunc", help="ids in full")
    parser.argument("service", "SERVICE|TASK")
    parser.set_defaults(run=logs)


def _resolution(parser: Parser) -> None:
    parser.switch("--no-resolve-image", help="leave the image's name to the nodes, without its digest")
    parser.switch("--with-registry-auth", help="give nodes your login of the image's registry; the swarm keeps it")


def _waiting(parser: Parser) -> None:
    parser.switch("-d", "--detach", help="do not wait until the service has converged")
    parser.switch("-q", "--quiet", help="wait in silence")


def _scaling(text: str) -> tuple[str, int]:
    name, equals, number = text.rpartition("=")
    if not name or not equals:
        raise BadValue(f"{text!r}: write it as SERVICE=REPLICAS")
    return name, values.count(number)


def _tail(text: str) -> str:
    return text if text == "all" else str(values.count(text))


def create(client: Client, args: Args) -> int:
    spec = service_spec.for_create(args)
    if not spec["Name"]:
        spec["Name"] = _random_name()
    headers, asked = _resolving(args, args.image)
    made = client.post("/services/create", spec, headers, **asked)
    print(made["ID"])
    return _finish(client, made["ID"], made, args, None)


def _resolving(args: Args, image: str) -> tuple[dict[str, str] | None, dict[str, object]]:
    """This user's login at an image's registry, and what for: to find its digest for the spec, or for nodes to pull it.

    image: "" for one that stays as it is, and has its digest.
    """
    given, resolve = args.with_registry_auth, bool(image) and not args.no_resolve_image
    if not given and not resolve:
        return None, {}
    from swarmd.swarmctl.credentials import Logins

    header = Logins().header(image)
    if given and not header:
        where = domain(image)
        raise Refusal(f"you have no login at {where} to give to nodes: log in with 'swarmctl login {where}'")
    return header, {"resolve": resolve or None, "withRegistryAuth": given or None}


def _random_name() -> str:
    import secrets

    return f"service-{secrets.token_hex(4)}"


def update(client: Client, args: Args) -> int:
    if args.rollback:
        before, after = (client.get(f"/services/{segment(args.service)}")["Spec"] for _ in range(2))
        if args.with_registry_auth or args.no_resolve_image or service_spec.for_update(after, args) != before:
            raise Refusal("--rollback goes back to the spec as it was: nothing can be changed beside it")
        return rollback(client, args)
    image = args.image or ""
    if args.with_registry_auth and not image:
        image = client.get(f"/services/{segment(args.service)}")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    headers, asked = _resolving(args, image)

    def edit(service: Any) -> Any:
        return service_spec.for_update(service["Spec"], args)

    before, answer = client.revise("services", args.service, edit, headers, **asked)
    return _finish(client, before["ID"], answer, args, before.get("UpdateStatus"))


def rollback(client: Client, args: Args) -> int:
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


def scale(client: Client, args: Args) -> int:
    code = 0
    for name, replicas in args.wanted:
        code = _revise(client, name, _scaled_to(replicas), args) or code
        if args.detach:
            print(f"{name} scaled to {replicas}")
    return code


def _scaled_to(replicas: int) -> Callable[[Any], Any]:
    def edit(service: Any) -> Any:
        service["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas
        return service["Spec"]

    return edit


def _revise(client: Client, name: str, edit: Callable[[Any], Any], args: Args, rollback: str | None = None) -> int:
    before, answer = client.revise("services", name, edit, rollback=rollback)
    return _finish(client, before["ID"], answer, args, before.get("UpdateStatus"))


def _finish(client: Client, id: str, answer: Any, args: Args, update_before: Any) -> int:
    for warning in (answer or {}).get("Warnings") or ():
        print(f"warning: {warning}", file=sys.stderr)
    return 0 if args.detach else progress.wait(client, id, quiet=args.quiet, update_before=update_before)


def listing(client: Client, args: Args) -> None:
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
        "Image": spec["TaskTemplate"]["ContainerSpec"]["Image"].partition("@")[0],
        "Ports": tasks.ports(
            port for port in (service.get("Endpoint") or {}).get("Ports") or () if port["PublishMode"] == "ingress"
        ),
    }


def ps(client: Client, args: Args) -> None:
    ids = [client.get(f"/services/{segment(name)}")["ID"] for name in args.services]
    wanted = (filters(args.filter) or {}) | {"service": ids}
    tasks.show(client, client.get("/tasks", filters=wanted), args)


def inspect(client: Client, args: Args) -> None:
    pretty.refuse_both(args)
    found = [client.get(f"/services/{segment(name)}") for name in args.services]
    pretty.show([pretty.service(one, _network_names(client, one)) for one in found] if args.pretty else found, args)


def _network_names(client: Client, service: Any) -> list[str]:
    names = []
    for network in service["Spec"]["TaskTemplate"].get("Networks") or ():
        try:
            names.append(client.get(f"/networks/{segment(network['Target'])}")["Name"])
        except Refusal:
            names.append(network["Target"])  # it is gone
    return names


def remove(client: Client, args: Args) -> int:
    code = 0
    for name in args.services:
        try:
            client.delete(f"/services/{segment(name)}")
            print(name)
        except Refusal as refusal:
            print(f"swarmctl: {refusal}", file=sys.stderr)
            code = 1
    return code


def logs(client: Client, args: Args) -> None:
    show_service_logs(client, _log_path(client, args.service), args)


def _log_path(client: Client, ref: str) -> str:
    for noun in ("services", "tasks"):
        try:
            return f"/{noun}/{client.get(f'/{noun}/{segment(ref)}')['ID']}/logs"
        except Refusal as refusal:
            if refusal.status != 404:
                raise
    raise Refusal(f"no such service or task: {ref}", 404)
