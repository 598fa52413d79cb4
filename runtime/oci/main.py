"""swarmd-oci: the OCI runtime command line, as podman's conmon, containerd's shim and CRI-O call it.

    create [--bundle DIR] [--console-socket SOCK] [--pid-file FILE] ID    start ID    state ID
    kill [--all] ID [SIGNAL]    delete [--force] ID    exec [--process FILE] ID [COMMAND]
    pause ID    resume ID    list    features

It exits with 0 or says why not, in one line on standard error and, where --log is given, there.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from swarmd.runtime import cgroups
from swarmd.runtime.errors import Conflict, Invalid, NotFound, RuntimeFault, StartError
from swarmd.runtime.oci import create as creating
from swarmd.runtime.oci import execute
from swarmd.runtime.oci.features import features
from swarmd.runtime.oci.state import Directory, State, shown
from swarmd.runtime.stages import hooks
from swarmd.runtime.stages.privileges import StepError

ROOT = Path("/run/swarmd-oci")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except (RuntimeFault, StepError, OSError) as problem:
        _say(args, problem)
        return problem.exit_code if isinstance(problem, StartError) else 1


def _say(args: argparse.Namespace, problem: Exception) -> None:
    print(f"swarmd-oci: {problem}", file=sys.stderr)
    if not args.log:
        return
    line = f"{problem}\n"
    if args.log_format == "json":
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = json.dumps({"level": "error", "msg": str(problem), "time": now}) + "\n"
    with Path(args.log).open("a") as log:
        log.write(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swarmd-oci", description="An OCI runtime: containers from bundles.")
    parser.add_argument("--version", "-v", action=_Version, nargs=0, help="show the version")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the state of containers is kept")
    parser.add_argument("--log", default="", help="a file that errors are written to")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--debug", action="store_true", help="accepted: every error is told in full anyway")
    parser.add_argument("--systemd-cgroup", action="store_true", help="refused: cgroups are made directly")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = _add(commands, "create", create, "make a container up to its program's start")
    command.add_argument("--bundle", "-b", type=Path, default=Path())
    command.add_argument("--console-socket", default="")
    command.add_argument("--pid-file", default="")
    command.add_argument("--no-pivot", action="store_true")
    command.add_argument("--no-new-keyring", action="store_true")
    command.add_argument("--preserve-fds", type=int, default=0)
    _add(commands, "start", start, "let a made container's program run")
    _add(commands, "state", state, "show a container as JSON")
    command = _add(commands, "kill", kill, "send a signal to a container's program")
    command.add_argument("signal", nargs="?", default="TERM")
    command.add_argument("--all", "-a", action="store_true", help="to every process in it")
    command = _add(commands, "delete", delete, "remove a container that has ended")
    command.add_argument("--force", "-f", action="store_true", help="kill it first; no error if there is none")
    command = _add(commands, "exec", run_in, "run one more program in a container")
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.add_argument("--process", "-p", type=Path, help="a file with the process, as in config.json")
    command.add_argument("--console-socket", default="")
    command.add_argument("--pid-file", default="")
    command.add_argument("--detach", "-d", action="store_true")
    command.add_argument("--tty", "-t", action="store_true")
    command.add_argument("--preserve-fds", type=int, default=0)
    _add(commands, "pause", pause, "freeze every process of a container")
    _add(commands, "resume", resume, "let them go on")
    listing = commands.add_parser("list", help="all containers of this root")
    listing.add_argument("--format", "-f", choices=("table", "json"), default="table")
    listing.set_defaults(run=list_all)
    commands.add_parser("features", help="what this runtime can do, as JSON").set_defaults(run=show_features)
    return parser


class _Version(argparse.Action):
    """Looked up only when asked for: every call of a container's life pays for what is imported."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"swarmd-oci version {version('swarmd')}\nspec: 1.0.2")
        parser.exit()


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("id", metavar="ID")
    command.set_defaults(run=run)
    return command


def _directory(args: argparse.Namespace) -> Directory:
    return Directory(args.root, args.id)


def create(args: argparse.Namespace) -> None:
    refusals = {
        "--systemd-cgroup": args.systemd_cgroup,
        "--no-pivot": args.no_pivot,
        "--preserve-fds": args.preserve_fds,
    }
    for flag, given in refusals.items():
        if given:
            hint = ": use the cgroupfs cgroup manager" if flag == "--systemd-cgroup" else ""
            raise Invalid(f"{flag} is not supported{hint}")
    creating.create(_directory(args), args.bundle, args.console_socket, args.pid_file)


def start(args: argparse.Namespace) -> None:
    directory = _directory(args)
    found = directory.load()
    if (status := directory.status(found)) != "created":
        raise Conflict(f"container {args.id} is {status}: only one that is created can be started")
    directory.mark_started()
    with directory.gate.open("wb", buffering=0) as gate:
        gate.write(b".")
    hooks.run(found.config, ("poststart",), shown(directory, found))


def state(args: argparse.Namespace) -> None:
    directory = _directory(args)
    print(json.dumps(shown(directory, directory.load()), indent=2))


def kill(args: argparse.Namespace) -> None:
    directory = _directory(args)
    found, number = directory.load(), _signal(args.signal)
    if args.all:
        for pid in _cgroup(found).pids():
            os.kill(pid, number)
        return
    if directory.status(found) not in ("created", "running"):
        raise Conflict(f"container {args.id} is not running: it can't be sent a signal")
    pidfd = os.pidfd_open(found.pid)
    if found.alive:
        signal.pidfd_send_signal(pidfd, number)


def delete(args: argparse.Namespace) -> None:
    directory = _directory(args)
    try:
        found = directory.load()
    except NotFound:
        if args.force:
            return
        raise
    status = directory.status(found)
    if status not in ("stopped", "creating") and not args.force:
        raise Conflict(f"container {args.id} is {status}: stop it first, or force its removal")
    told = shown(directory, found) | {"status": "stopped", "pid": 0}
    creating.discard(directory, found)
    hooks.run(found.config, ("poststop",), told)


def run_in(args: argparse.Namespace) -> int:
    directory = _directory(args)
    if args.preserve_fds:
        raise Invalid("--preserve-fds is not supported")
    if args.process:
        process = json.loads(args.process.read_bytes())
    elif args.command:
        process = directory.load().config["process"] | {"args": args.command, "terminal": args.tty}
    else:
        raise Invalid("name a command, or a file with --process")
    return execute.execute(directory, process, args.console_socket, args.pid_file, args.detach)


def pause(args: argparse.Namespace) -> None:
    _cgroup(_directory(args).load()).freeze()


def resume(args: argparse.Namespace) -> None:
    _cgroup(_directory(args).load()).thaw()


def list_all(args: argparse.Namespace) -> None:
    ids = sorted(path.name for path in args.root.iterdir()) if args.root.is_dir() else []
    found = [shown(directory, directory.load()) for directory in (Directory(args.root, id) for id in ids)]
    if args.format == "json":
        print(json.dumps(found))
        return
    print(f"{'ID':<40} {'PID':>8} {'STATUS':<9} BUNDLE")
    for one in found:
        print(f"{one['id']:<40} {one['pid']:>8} {one['status']:<9} {one['bundle']}")


def show_features(args: argparse.Namespace) -> None:
    print(json.dumps(features(), indent=2))


def _cgroup(found: State) -> cgroups.Cgroup:
    return cgroups.detect(found.cgroup_parent).load(found.cgroup_id)


def _signal(text: str) -> int:
    if text.isdigit() and int(text) in signal.valid_signals():
        return int(text)
    try:
        return int(signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"])
    except KeyError:
        raise Invalid(f"signal {text} is not known") from None


if __name__ == "__main__":
    sys.exit(main())
