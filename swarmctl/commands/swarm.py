"""swarmctl swarm ..."""

import argparse
from pathlib import Path
from typing import Any

from swarmd.swarmctl import values
from swarmd.swarmctl.client import Client, Refusal

# What `swarm init` is told of a new cluster.
_INIT = frozenset(
    {
        *("advertise_addr", "listen_addr", "availability", "default_addr_pool", "default_addr_pool_mask_length"),
        *("cert_expiry", "dispatcher_heartbeat", "task_history_limit"),
        *("etcd_endpoints", "etcd_cacert", "etcd_cert", "etcd_key", "etcd_prefix"),
    }
)


def add(verbs: Any) -> None:
    parser = verbs.add_parser("init", help="make a cluster, with this node as its first manager")
    _address_flags(parser)
    parser.add_argument(
        "--default-addr-pool", action="append", default=[], metavar="SUBNET", help="for overlay networks"
    )
    parser.add_argument("--default-addr-pool-mask-length", type=values.count, default=0, metavar="BITS")
    parser.add_argument(
        "--force-new-cluster", action="store_true",
        help="on a manager: go on without the others, whose quorum is lost for ever; keeps everything, goes alone",
    )  # fmt: skip
    _spec_flags(parser)
    _etcd_flags(parser)
    parser.set_defaults(run=init, parser=parser)

    parser = verbs.add_parser("join", help="join a cluster, in the role that the token is for")
    _address_flags(parser)
    parser.add_argument("--token", required=True, help="from 'swarmctl swarm join-token' on a manager")
    parser.add_argument("remote", metavar="HOST:PORT", help="a manager")
    parser.set_defaults(run=join, parser=parser)

    parser = verbs.add_parser("join-token", help="show, or change, the token to join with")
    parser.add_argument("--rotate", action="store_true", help="make a new one; the old one is void")
    parser.add_argument("-q", "--quiet", action="store_true", help="the token only")
    parser.add_argument("role", choices=("worker", "manager"))
    parser.set_defaults(run=join_token, parser=parser)

    parser = verbs.add_parser("leave", help="leave the cluster")
    parser.add_argument("-f", "--force", action="store_true", help="even as a manager")
    parser.set_defaults(run=leave, parser=parser)

    parser = verbs.add_parser("update", help="change the cluster's settings")
    _spec_flags(parser)
    parser.set_defaults(run=update, parser=parser)


def _address_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--advertise-addr", default="", metavar="ADDRESS", help="where other nodes reach this one")
    parser.add_argument("--listen-addr", default="", metavar="ADDRESS")
    parser.add_argument("--availability", choices=("active", "pause", "drain"), default="active")


def _spec_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--cert-expiry", type=values.duration, metavar="DURATION", help="life of nodes' certificates")
    add("--dispatcher-heartbeat", type=values.duration, metavar="DURATION", help="how often nodes report")
    add("--task-history-limit", type=values.count, metavar="COUNT", help="ended tasks kept for each slot")


def _etcd_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--etcd-endpoints", default="", metavar="URL[,URL...]",
        help="keep the cluster's state in this etcd, which must be empty below the prefix")  # fmt: skip
    add("--etcd-cacert", default="", metavar="FILE", help="PEM: the authority of that etcd's certificates")
    add("--etcd-cert", default="", metavar="FILE", help="PEM: the managers' certificate for that etcd")
    add("--etcd-key", default="", metavar="FILE", help="PEM: its key")
    add("--etcd-prefix", default="", metavar="PATH", help="where its keys are in that etcd (default: /swarmd)")


def _etcd(args: argparse.Namespace) -> dict[str, Any] | None:
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
        return Path(path).read_text(errors="replace")
    except OSError as problem:
        raise Refusal(f"{path}: {(problem.strerror or str(problem)).lower()}") from None


def _edit(spec: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    for section, field, value in (
        ("CAConfig", "NodeCertExpiry", args.cert_expiry),
        ("Dispatcher", "HeartbeatPeriod", args.dispatcher_heartbeat),
        ("Orchestration", "TaskHistoryRetentionLimit", args.task_history_limit),
    ):
        if value is not None:
            spec.setdefault(section, {})[field] = value
    return spec


def init(client: Client, args: argparse.Namespace) -> None:
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


def _init_alone(client: Client, args: argparse.Namespace) -> None:
    given = [name for name, value in vars(args).items() if name in _INIT and value != args.parser.get_default(name)]
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


def join(client: Client, args: argparse.Namespace) -> None:
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


def join_token(client: Client, args: argparse.Namespace) -> None:
    if args.rotate:
        rotate = {f"rotate{args.role.capitalize()}Token": True}
        client.revise("swarm", "", lambda swarm: swarm["Spec"], **rotate)
        if not args.quiet:
            print(f"The {args.role} token is a new one; the old one is void.\n")
    if args.quiet:
        print(client.get("/swarm")["JoinTokens"][args.role.capitalize()])
    else:
        _invite(client, args.role)


def leave(client: Client, args: argparse.Namespace) -> None:
    client.warn(client.post("/swarm/leave", force=args.force))
    print("Node left the swarm.")


def update(client: Client, args: argparse.Namespace) -> None:
    client.revise("swarm", "", lambda swarm: _edit(swarm["Spec"], args))
    print("Swarm updated.")
