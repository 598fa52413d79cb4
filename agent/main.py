"""swarmd, the node daemon: what it is built of, from the command line to the listening sockets.

Order: the locks on its roots, the sockets, the engine, the membership, the API.  It ends in reverse, and containers run
on.  What is heavy is imported in `_serve`, so that `--help` and a refusal are quick.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from swarmd.agent.listen import Address, Refused, TlsFiles, notify, open_socket, parse_address
from swarmd.agent.logs import FORMATS, LEVELS, set_up

if TYPE_CHECKING:
    from swarmd.runtime.registry import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    socket: socket.socket
    tls: ssl.SSLContext | None


def main(argv: Sequence[str] | None = None) -> int:
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # read when grpc is imported; children are started by exec at once
    args = _parser().parse_args(argv)
    set_up(args.log_level, args.log_format)
    try:
        addresses, tls = _addresses(args)
        with _locked(args.data_root, args.run_root):
            listeners = [Listener(open_socket(address), tls if address.port else None) for address in addresses]
            _run(_serve(args, listeners))
    except Refused as refusal:
        print(f"swarmd: {refusal}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarmd", description="Container engine and cluster node.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--version", action="version", version=f"swarmd {version('swarmd')}")
    add("--data-root", type=_directory, default=Path("/var/lib/swarmd"), metavar="DIR",
        help="images, containers, identity (default: %(default)s)")  # fmt: skip
    add("--run-root", type=_directory, default=Path("/run/swarmd"), metavar="DIR",
        help="sockets, network namespaces (default: %(default)s)")  # fmt: skip
    add("-H", "--host", action="append", dest="hosts", metavar="ADDRESS",
        help="where to listen: unix:///path or tcp://address:port; repeatable")  # fmt: skip
    add("--cgroup-parent", default="swarmd", metavar="NAME", help="control group of all containers")
    add("--hostname", default=socket.gethostname(), help="this node's name in the cluster (default: the host's)")
    add("--registry-mirror", action="append", default=[], metavar="[DOMAIN=]URL",
        help="ask there first for images of a registry (default: docker.io); repeatable")  # fmt: skip
    add("--insecure-registry", action="append", default=[], metavar="HOST[:PORT]|NETWORK",
        help="a registry whose certificate isn't checked, or which has none; repeatable")  # fmt: skip
    add("--registry-certs", type=_directory, action="append", default=[], metavar="DIR",
        help="directories HOST[:PORT] with *.crt, *.cert and *.key for registries, "
        "besides /etc/swarmd/certs.d and /etc/docker/certs.d; repeatable")  # fmt: skip
    add("--log-level", choices=LEVELS, default="info")
    add("--log-format", choices=FORMATS, default="text")
    add("--tlsverify", action="store_true", help="tcp:// clients must show a certificate of --tlscacert")
    for name, what in (("tlscacert", "CA of the clients"), ("tlscert", "own certificate"), ("tlskey", "its key")):
        add(f"--{name}", type=Path, metavar="FILE", help=f"{what}, PEM")
    return parser


def _directory(text: str) -> Path:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path")
    return Path(text)


def _addresses(args: argparse.Namespace) -> tuple[list[Address], ssl.SSLContext | None]:
    """Where to listen; a tcp address comes with TLS or not at all."""
    addresses = [parse_address(text) for text in args.hosts or [f"unix://{args.run_root}/swarmd.sock"]]
    files = (args.tlscacert, args.tlscert, args.tlskey)
    has_tcp = any(address.port for address in addresses)
    if has_tcp and not (args.tlsverify and all(files)):
        raise Refused(
            "a tcp:// address needs --tlsverify, --tlscacert, --tlscert and --tlskey: "
            "plain tcp would give this host to anyone who can reach it"
        )
    if not has_tcp and (args.tlsverify or any(files)):
        raise Refused("--tlsverify, --tlscacert, --tlscert and --tlskey are for a tcp:// address: name one with -H")
    return addresses, TlsFiles(*files).context() if has_tcp else None


@contextmanager
def _locked(*roots: Path) -> Iterator[None]:
    """One swarmd for each root; the lock goes with the process, however it ends."""
    with ExitStack() as held:
        for root in roots:
            try:
                root.mkdir(parents=True, exist_ok=True, mode=0o711)
                file = held.enter_context((root / "swarmd.pid").open("a+"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise Refused(f"{root} is in use by another swarmd, process {file.read().strip()}") from None
            except OSError as problem:
                raise Refused(f"cannot use {root}: {problem.strerror}; run swarmd as root") from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def _run(daemon: Coroutine[None, None, None]) -> None:
    import uvloop

    from swarmd.proto.errors import SwarmdError
    from swarmd.runtime.errors import RuntimeFault

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(daemon)
    except (RuntimeFault, SwarmdError, BaseExceptionGroup) as problem:
        causes = list(_causes(problem))
        if not all(isinstance(cause, RuntimeFault | SwarmdError) for cause in causes):
            raise
        raise Refused("; ".join(map(str, causes))) from None


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """The errors that task groups have wrapped."""
    for error in problem.exceptions if isinstance(problem, BaseExceptionGroup) else ():
        yield from _causes(error)
    if not isinstance(problem, BaseExceptionGroup):
        yield problem


def _registries(args: argparse.Namespace) -> "Settings":
    """Raises Invalid for a mirror or an insecure registry that is none."""
    from swarmd.runtime.registry.settings import CERTIFICATES, LOOPBACK, Settings

    mirrors: dict[str, tuple[str, ...]] = {}
    for given in args.registry_mirror:
        domain, equals, url = given.partition("=")
        domain, url = (domain, url) if equals and "/" not in domain else ("docker.io", given)
        mirrors[domain] = (*mirrors.get(domain, ()), url)
    return Settings(
        mirrors=mirrors,
        insecure=(*LOOPBACK, *args.insecure_registry),
        certificates=(*args.registry_certs, *CERTIFICATES),
    )


async def _serve(args: argparse.Namespace, listeners: Sequence[Listener]) -> None:
    """All of the daemon, until SIGTERM or SIGINT."""
    from swarmd.runtime.engine import Engine, EngineConfig

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as held:
        # First, while this process has no threads: the engine starts its spawner.
        config = EngineConfig(
            data_root=args.data_root,
            run_root=args.run_root,
            cgroup_parent=args.cgroup_parent,
            registries=_registries(args),
        )
        engine = await held.enter_async_context(Engine.open(config))

        from aiohttp import web

        from swarmd.agent.api.app import application
        from swarmd.agent.api.interface import Host, Services
        from swarmd.agent.cluster import ClusterMembership
        from swarmd.agent.tls_listener import TlsListener

        membership = await held.enter_async_context(
            ClusterMembership.open(engine, args.data_root, args.run_root, hostname=args.hostname)
        )
        host = Host(name=args.hostname, data_root=args.data_root, version=version("swarmd"))
        secured = await held.enter_async_context(asyncio.TaskGroup())
        # Log streams and waits have no end of their own: a short grace, which aiohttp gives twice, then they are cut.
        runner = web.AppRunner(application(Services(engine, membership, host)), access_log=None, shutdown_timeout=0.3)
        await runner.setup()
        held.push_async_callback(runner.cleanup)
        for listener in listeners:
            if listener.tls:
                assert runner.server is not None
                serving = secured.create_task(TlsListener(listener.socket, listener.tls, runner.server).run())
                held.callback(serving.cancel)
            else:
                await web.SockSite(runner, listener.socket).start()
        notify("READY=1")
        log.info("ready: %s", ", ".join(str(listener.socket.getsockname()) for listener in listeners))
        await stopping.wait()
        notify("STOPPING=1")
        log.info("stopping; containers run on")


if __name__ == "__main__":
    sys.exit(main())
