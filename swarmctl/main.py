"""swarmctl: the command line. Words in, one request or a few out, and an honest exit code.

commands/__init__.py lists the commands; only the one that is asked for is imported.
"""

from __future__ import annotations

import os
import sys

from swarmd.swarmctl import target
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.commands import GROUPS, SHORT, Command
from swarmd.swarmctl.dial import DEFAULT_HOST, Endpoint
from swarmd.swarmctl.http import ProtocolError
from swarmd.swarmctl.parser import Parser, did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

_LEVELS = ("debug", "info", "warn", "error", "fatal")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except Refusal as refusal:
        print(f"swarmctl: {refusal}", file=sys.stderr)
        return refusal.code
    except BrokenPipeError:  # `swarmctl service ls | head -1`
        # What is left in the buffer goes nowhere, and without a complaint at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def command() -> NoReturn:
    """The program: `main`, and an end without the interpreter's own, which takes two milliseconds to free memory."""
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141
    os._exit(code)


def _main(words: list[str]) -> int:
    root = _Root()
    flags = root.parse_args(words)
    rest = list(flags.words)
    if flags.version:
        rest = ["version", "--format", "swarmctl {{.Client.Version}}"]
    if not rest:
        root.print_help()
        return 0
    args = find(rest).parse_args(rest)
    args.daemon_flags = target.Flags(
        flags.daemon,
        flags.context,
        flags.config,
        flags.tls,
        flags.tlsverify,
        flags.tlscacert,
        flags.tlscert,
        flags.tlskey,
    )
    debug = flags.debug or flags.log_level == "debug"
    endpoint = Endpoint(DEFAULT_HOST) if getattr(args, "local", False) else target.endpoint(args.daemon_flags)
    client = Client(endpoint, debug=debug, warnings=flags.log_level in ("debug", "info", "warn"))
    try:
        code = int(args.run(client, args) or 0)
    except ProtocolError as problem:
        raise Refusal(f"{endpoint.host}: {problem}") from None
    finally:
        client.close()
    sys.stdout.flush()
    return code


class _Root(Parser):
    """The flags that stand before the command."""

    def __init__(self) -> None:
        super().__init__("swarmctl", "Run containers on this host, and services on a cluster of hosts.")
        self.text("--config", metavar="DIRECTORY", default="",
                  help="where contexts are kept (default: $SWARMCTL_CONFIG or ~/.swarmd)")  # fmt: skip
        self.text("-c", "--context", metavar="NAME", default="",
                  help="the daemon that has this name (also $SWARMCTL_CONTEXT)")  # fmt: skip
        self.switch("-D", "--debug", help="tell of every request")
        self.text("-H", "--host", dest="daemon", metavar="ADDRESS", default="",
                  help="the daemon: unix:///path, tcp://host:port, ssh://user@host (also $SWARMCTL_HOST)")  # fmt: skip
        self.text("-l", "--log-level", choices=_LEVELS, default="info", metavar="LEVEL", help=", ".join(_LEVELS))
        self.switch("--tls", help="TLS; without --tlsverify the daemon need not prove who it is")
        self.text("--tlscacert", metavar="FILE", default="", help="authority of the daemon's certificate")
        self.text("--tlscert", metavar="FILE", default="", help="this client's certificate")
        self.text("--tlskey", metavar="FILE", default="", help="its key")
        self.switch("--tlsverify", help="TLS, and the daemon must prove who it is")
        self.switch("-v", "--version", help="show this command's version")
        self.argument("words", "COMMAND", "...")

    def print_help(self) -> None:
        from swarmd.swarmctl.help import flags_of

        groups = {name: f"{text}: {', '.join(verbs)}" for name, (text, verbs) in GROUPS.items()}
        print(f"Usage: swarmctl [FLAGS] COMMAND\n\n{self.description}")
        print(f"\nCommands:\n{_lines(SHORT)}\n\nBy noun:\n{_lines(groups)}\n")
        print(f"{flags_of(self)}\n\n'swarmctl COMMAND --help' tells more.", flush=True)


# ---------------------------------------------------------------- commands


def find(words: list[str]) -> Parser:
    """The parser of a command; its words are taken off the list."""
    name = words[0]
    if name in GROUPS:
        text, verbs = GROUPS[words.pop(0)]
        verb = words.pop(0) if words else "--help"
        if verb in verbs:
            return _command(f"swarmctl {name} {verb}", verbs[verb])
        if verb in ("--help", "-h"):
            print(f"Usage: swarmctl {name} COMMAND\n\n{text}\n\nCommands:\n{_lines(verbs)}", flush=True)
            raise SystemExit(0)
        return _unknown(f"swarmctl {name}", verb, verbs)
    if name in SHORT:
        return _command(f"swarmctl {words.pop(0)}", SHORT[name])
    return _unknown("swarmctl", name, {**GROUPS, **SHORT})


def _command(prog: str, command: Command) -> Parser:
    usage = f"{prog} [FLAGS] {command.usage}" if command.usage else ""
    parser = Parser(prog, command.help[0].upper() + command.help[1:] + ".", usage)
    module = f"swarmd.swarmctl.commands.{command.module}"
    __import__(module)  # importlib is one more module to load
    getattr(sys.modules[module], command.add)(parser)
    return parser


def _unknown(prog: str, word: str, known: Mapping[str, object]) -> NoReturn:
    print(f"{prog}: unknown command: {word}{did_you_mean(word, [*known])}\nSee '{prog} --help'.", file=sys.stderr)
    raise SystemExit(2)


def _lines(commands: Mapping[str, Command | str]) -> str:
    width = max(map(len, commands))
    return "\n".join(
        f"  {name.ljust(width)}   {what if isinstance(what, str) else what.help}"
        for name, what in sorted(commands.items())
    )


if __name__ == "__main__":
    command()
