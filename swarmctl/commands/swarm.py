"""swarmctl swarm ..."""

from __future__ import annotations

from swarmd.swarmctl import values
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.parser import Args, Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What `swarm init` is told of a new cluster.
_INIT = frozenset(
    {
        *("advertise_addr", "listen_addr", "availability", "default_addr_pool", "default_addr_pool_mask_length"),
        *("cert_expiry", "dispatcher_heartbeat", "task_history_limit"),
        *("etcd_endpoints", "etcd_cacert", "etcd_cert", "etcd_key", "etcd_prefix"),
    }
)


def add_init(parser: Parser) -> None:
    _address_flags(parser)
    parser.several("--default-addr-pool", metavar="SUBNET", help="for overlay networks")
    parser.text("--default-addr-pool-mask-length", type=values.count, default=0, metavar="BITS")
    parser.switch(
        "--force-new-cluster",
        help="on a manager: go on without the others, whose quorum is lost for ever; keeps everything, goes alone",
    )
    _spec_flags(parser)
    _etcd_flags(parser)
    parser.set_defaults(run=init, parser=parser)


def add_join(parser: Parser) -> None:
    _address_flags(parser)
    parser.text("--token", required=True, help="from 'swarmctl swarm join-token' on a manager")
    parser.argument("remote", "HOST:PORT", help="a manager")
    parser.set_defaults(run=join)


def add_join_token(parser: Parser) -> None:
    parser.switch("--rotate", help="make a new one; the old one is void")
    parser.switch("-q", "--quiet", help="the token only")
    parser.argument("role", choices=("worker", "manager"))
    parser.set_defaults(run=join_token)


def add_leave(parser: Parser) -> None:
    parser.switch("-f", "--force", help="even as a manager")
    parser.set_defaults(run=leave)


def add_update(parser: Parser) -> None:
    _spec_flags(parser)
    parser.set_defaults(run=update)


def _address_flags(parser: Parser) -> None:
    parser.text("--advertise-addr", default="", metavar="ADDRESS", help="where other nodes reach this one")
    parser.text("--listen-addr", default="", metavar="ADDRESS")
    parser.text("--availability", choices=("active", "pause", "drain"), default="active")


def _spec_flags(parser: Parser) -> None:
    parser.text("--cert-expiry", type=values.duration, metavar="DURATION", help="life of nodes' certificates")
    parser.text("--dispatcher-heartbeat", type=values.duration, metavar="DURATION", help="how often nodes report")
    parser.text("--task-history-limit", type=values.count, metavar="COUNT", help="ended tasks kept for each slot")


def _etcd_flags(parser: Parser) -> None:
    parser.text(
        "--etcd-endpoints",
        default="",
        metavar="URL[,URL...]",
        help="keep the cluster's state in this etcd, which must be empty below the prefix",
    )
    parser.text("--etcd-cacert", default="", metavar="FILE", help="PEM: the authority of that etcd's certificates")
    parser.text("--etcd-cert", default="", metavar="FILE", help="PEM: the managers' certificate for that etcd")
    parser.text("--etcd-key", default="", metavar="FILE", help="PEM: its key")
    parser.text("--etcd-prefix", default="", metavar="PATH", help="where its keys are in that etcd (default: /swarmd)")


def _etcd(args: Args) -> dict[str, Any] | None:
    files = (args.etcd_cacert, args.etcd_cert, args.etcd_key)
    if not args.etcd_endpoints:
        if any((*files, args.etcd_prefix)):
            args.parser.error("--etcd-cacert, --etcd-cert, --etcd-key and --etcd-prefix go with --etcd-endpoints")
        return None
    if not all(files):
        args.parser.error("--etcd-endpoints needs --etcd-cacert, --etcd-cert and --etcd-key")
    ca, certificate, key = (_pem(path) for path in files)
    endpoints = [url for url in args.etcd_endpoints.split(",") if url]
    return {"Endpoints": endpoints, "CACert": ca, "Cert": certificate, "Key": key, "Prefix": args.etcd_prefix}


def _pem(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError as problem:
        raise Refusal(f"{path}: {(problem.strerror or str(problem)).lower()}") from None


def _edit(spec: dict[str, Any], args: Args) -> dict[str, Any]:
    for section, field, value in (
        ("CAConfig", "NodeCertExpiry", args.cert_expiry),
        ("Dispatcher", "HeartbeatPeriod", args.dispatcher_heartbeat),
        ("Orchestration", "TaskHistoryRetentionLimit", args.task_history_limit),
    ):
        if value is not None:
            spec.setdefault(section, {})[field] = value
    return spec


def init(client: Client, args: Args) -> None:
    if args.force_new_cluster:
        _init_alone(client, args)
        return
    node = client.post(
        "/swarm/init",
        {
            "AdvertiseAddr": args.advertise_addr,
            "ListenAddr": args.listen_addr,
            "Availability": args.availability,
            "DefaultAddrPool": args.default_addr_pool,
            "SubnetSize": args.default_addr_pool_mask_length,
            "Spec": _edit({}, args),
            "SwarmdEtcd": _etcd(args),
        },
    )
    print(f"Swarm initialized: this node ({node}) is now a manager.\n")
    _invite(client, "worker")
    print("To add a manager, run 'swarmctl swarm join-token manager' and follow the instructions.")


def _init_alone(client: Client, args: Args) -> None:
    given = [name for name, value in vars(args).items() if name in _INIT and value != args.parser.default_of(name)]
    if given:
        flag = "--" + given[0].replace("_", "-")
        args.parser.error(f"{flag} does not go with --force-new-cluster, which keeps the cluster's settings")
    node = client.post("/swarm/init", {"ForceNewCluster": True})
    print(f"This node ({node}) is the only manager of the swarm now; all it knew of the swarm is kept.\n")
    print("The other managers count as workers that are down: remove those that are lost with 'swarmctl node rm'.")
    print("To add a manager, run 'swarmctl swarm join-token manager' and follow the instructions.")


def _invite(client: Client, role: str) -> None:
    token = client.get("/swarm")["JoinTokens"][role.capitalize()]
    address = client.get("/nodes/self")["ManagerStatus"]["Addr"]
    print(f"To add a {role} to this swarm, run on it:\n\n    swarmctl swarm join --token {token} {address}\n")


def join(client: Client, args: Args) -> None:
    client.post(
        "/swarm/join",
        {
            "RemoteAddrs": [args.remote],
            "JoinToken": args.token,
            "AdvertiseAddr": args.advertise_addr,
            "ListenAddr": args.listen_addr,
            "Availability": args.availability,
        },
    )
    role = "manager" if client.get("/info")["Swarm"]["ControlAvailable"] else "worker"
    print(f"This node joined a swarm as a {role}.")


def join_token(client: Client, args: Args) -> None:
    if args.rotate:
        rotate = {f"rotate{args.role.capitalize()}Token": True}
        client.revise("swarm", "", lambda swarm: swarm["Spec"], **rotate)
        if not args.quiet:
            print(f"The {args.role} token is a new one; the old one is void.\n")
    if args.quiet:
        print(client.get("/swarm")["JoinTokens"][args.role.capitalize()])
    else:
        _invite(client, args.role)


def leave(client: Client, args: Args) -> None:
    client.warn(client.post("/swarm/leave", force=args.force))
    print("Node left the swarm.")


def update(client: Client, args: Args) -> None:
    client.revise("swarm", "", lambda swarm: _edit(swarm["Spec"], args))
    print("Swarm updated.")
