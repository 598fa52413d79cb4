"""swarmctl attach, start."""

from __future__ import annotations

from swarmd.swarmctl import output, session, terminal
from swarmd.swarmctl.client import Client, Refusal, segment
from swarmd.swarmctl.jsontext import loads
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.start import start as start_container
from swarmd.swarmctl.values import DETACH_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_attach(parser: Parser) -> None:
    _add_keys(parser)
    parser.switch("--no-stdin", help="output only")
    parser.switch("--sig-proxy", default=True, help="pass signals on to the container (default: true)")
    parser.argument("container", "CONTAINER")
    parser.set_defaults(run=attach)


def _add_keys(parser: Parser) -> None:
    parser.text("--detach-keys", default="", metavar="KEYS", help=f"keys that detach (default: {DETACH_KEYS})")


def attach(client: Client, args: Args) -> int:
    state = client.get(f"/containers/{segment(args.container)}/json")
    if not state["State"]["Running"]:
        raise Refusal(f"container {args.container} is not running: start it first")
    if state["State"].get("Paused"):
        raise Refusal(f"container {args.container} is paused: unpause it first")
    config, id = state["Config"], state["Id"]
    stdin = not args.no_stdin and config["OpenStdin"]
    session.check_terminal(stdin=stdin, tty=config["Tty"])
    end = Ending(client, id)
    open_streams = {"stdin": stdin, "stdout": True, "stderr": True}
    joined = join(client, id, open_streams, tty=config["Tty"], keys=args.detach_keys)
    with session.signals_to(client, id, args.sig_proxy), sized(client, id, config["Tty"]):
        joined.run()
    return 0 if joined.detached else end.code()


def join(client: Client, id: str, streams: dict[str, bool], *, tty: bool, keys: str) -> session.Session:
    """streams: which of stdin, stdout and stderr."""
    terminal.keys(keys or DETACH_KEYS)  # a wrong word is said before anything happens
    wanted = {name: True for name, on in streams.items() if on}
    response = client.hijack(f"/containers/{id}/attach", stream=True, detachKeys=keys or None, **wanted)
    return session.Session(response, stdin=streams["stdin"], tty=tty, detach_keys=keys)


def sized(client: Client, id: str, tty: bool) -> session.Signals:
    return session.resizing(tty, lambda rows, columns: client.post(f"/containers/{id}/resize", h=rows, w=columns))


class Ending:
    """Waits for a container's exit from before it is started: the daemon listens once this is made."""

    def __init__(self, client: Client, id: str, *, removed: bool = False, started: bool = True) -> None:
        condition = "removed" if removed else "not-running" if started else "next-exit"
        self._answer = client.follow(f"/containers/{id}/wait", condition=condition)

    def code(self) -> int:
        found: dict[str, Any] = loads(self._answer.read() or b"{}")
        problem = (found.get("Error") or {}).get("Message")
        if "StatusCode" not in found:
            raise Refusal(problem or "the daemon hung up before the container ended", code=125)
        return int(found["StatusCode"])


# ---------------------------------------------------------------- start


def add_start(parser: Parser) -> None:
    parser.switch("-a", "--attach", help="show its output, and pass signals on")
    _add_keys(parser)
    parser.switch("-i", "--interactive", help="and give it this input")
    parser.argument("containers", "CONTAINER", "+")
    parser.lacks(dict.fromkeys(("--checkpoint", "--checkpoint-dir"), "there are no checkpoints of running programs"))
    parser.set_defaults(run=start)


def start(client: Client, args: Args) -> int:
    if not args.attach and not args.interactive:
        return output.each(args.containers, lambda name: client.post(f"/containers/{segment(name)}/start"))
    if len(args.containers) > 1:
        raise Refusal("name one container: there is one terminal to attach")
    state = client.get(f"/containers/{segment(args.containers[0])}/json")
    id, config, auto = state["Id"], state["Config"], state["HostConfig"].get("AutoRemove", False)
    stdin = args.interactive and config["OpenStdin"]
    session.check_terminal(stdin=stdin, tty=config["Tty"])
    streams = {"stdin": stdin, "stdout": True, "stderr": True}
    return follow_start(client, id, streams, tty=config["Tty"], keys=args.detach_keys, auto_remove=auto)


def follow_start(
    client: Client,
    id: str,
    streams: dict[str, bool],
    *,
    tty: bool,
    keys: str,
    auto_remove: bool,
    signals: bool = True,
) -> int:
    """Attach, start, and stay until it ends; return its exit code, or 0 when detached."""
    joined = join(client, id, streams, tty=tty, keys=keys)
    end = Ending(client, id, removed=auto_remove, started=False)
    with session.signals_to(client, id, signals):
        start_container(client, id)
        with sized(client, id, tty):
            joined.run()
        return 0 if joined.detached else end.code()
