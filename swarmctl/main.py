"""swarmctl: the command line. Words in, one request or a few out, and an honest exit code.

commands/__init__.py lists the commands; only the one that is asked for is imported.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from swarmd.swarmctl import target
from swarmd.swarmctl.client import Client, Refusal
from swarmd.swarmctl.commands import GROUPS, NOUNS, SHORT, Command
from swarmd.swarmctl.dial import DEFAULT_HOST, Endpoint
from swarmd.swarmctl.http import ProtocolError
from swarmd.swarmctl.parser import Parser, did_you_mean

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


def _main(words: list[str]) -> int:
    root = _root()
    flags = root.parse_args(words)
    rest = list(flags.words)
    if flags.version:
        rest = ["version", "--format", "swarmctl {{.Client.Version}}"]
    if not rest:
        _help(root)
        return 0
    parser = find(rest)
    args = parser.parse_args(rest)
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
    sys.stdout.flush()
    return code


def _root() -> Parser:
    parser = Parser(prog="swarmctl", description="Run containers on this host, and services on a cluster of hosts.")
    parser.text(
        "--config",
        metavar="DIRECTORY",
        default="",
        help="where contexts are kept (default: $SWARMCTL_CONFIG or ~/.swarmd)",
    )
    parser.text(
        "-c", "--context", metavar="NAME", default="", help="the daemon that has this name (also $SWARMCTL_CONTEXT)"
    )
    parser.switch("-D", "--debug", help="tell of every request")
    parser.text(
        "-H",
        "--host",
        dest="daemon",
        metavar="ADDRESS",
        default="",
        help="the daemon: unix:///path, tcp://address:port or ssh://user@host (also $SWARMCTL_HOST)",
    )
    parser.text("-l", "--log-level", choices=_LEVELS, default="info", metavar="LEVEL", help=", ".join(_LEVELS))
    parser.switch("--tls", help="TLS; without --tlsverify the daemon need not prove who it is")
    parser.text("--tlscacert", metavar="FILE", default="", help="authority of the daemon's certificate")
    parser.text("--tlscert", metavar="FILE", default="", help="this client's certificate")
    parser.text("--tlskey", metavar="FILE", default="", help="its key")
    parser.switch("--tlsverify", help="TLS, and the daemon must prove who it is")
    parser.switch("-v", "--version", help="show this command's version")
    parser.add_argument("words", nargs="...", metavar="COMMAND")
    parser.print_help = lambda file=None: _help(parser)  # type: ignore[method-assign]
    return parser


# ---------------------------------------------------------------- commands


def find(words: list[str]) -> Parser:
    """The parser of a command; its words are taken off the list."""
    name = words[0]
    if name in NOUNS:
        return _noun(words.pop(0))
    if name in GROUPS:
        text, verbs = GROUPS[words.pop(0)]
        verb = words.pop(0) if words else "--help"
        if verb in verbs:
            return _command(f"swarmctl {name} {verb}", verbs[verb])
        if verb in ("--help", "-h"):
            print(f"Usage: swarmctl {name} COMMAND\n\n{text}\n\nCommands:\n{_lines(verbs)}")
            raise SystemExit(0)
        return _unknown(f"swarmctl {name}", verb, verbs)
    if name in SHORT:
        return _command(f"swarmctl {words.pop(0)}", SHORT[name])
    return _unknown("swarmctl", name, {**NOUNS, **GROUPS, **SHORT})


def _command(prog: str, command: Command) -> Parser:
    text = command.help[0].upper() + command.help[1:] + "."
    parser = Parser(prog=prog, description=text, usage=f"{prog} [FLAGS] {command.usage}".rstrip())
    getattr(importlib.import_module(f"swarmd.swarmctl.commands.{command.module}"), command.add)(parser)
    return parser


def _noun(noun: str) -> Parser:
    parser = Parser(prog=f"swarmctl {noun}", description=NOUNS[noun])
    verbs = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    importlib.import_module(f"swarmd.swarmctl.commands.{noun}").add(verbs)
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


def _help(root: Parser) -> None:
    groups = {**NOUNS, **{name: f"{text}: {', '.join(verbs)}" for name, (text, verbs) in GROUPS.items()}}
    print(f"Usage: swarmctl [FLAGS] COMMAND\n\n{root.description}")
    print(f"\nCommands:\n{_lines(SHORT)}\n\nBy noun:\n{_lines(groups)}\n")
    formatter = root._get_formatter()
    formatter.start_section("Flags")
    formatter.add_arguments([action for action in root._actions if action.option_strings])
    formatter.end_section()
    print(formatter.format_help() + "\n'swarmctl COMMAND --help' tells more.")


if __name__ == "__main__":
    sys.exit(main())
