"""swarmctl: the command line. Words in, one request or a few out, and an honest exit code.

Each noun is a file in commands/ with `add(verbs)`; only the noun that is asked for is imported.
"""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from swarmd.swarmctl.client import Client, Refusal, host_from
from swarmd.swarmctl.template import TemplateError

NOUNS = {
    "service": "services: create, ls, ps, inspect, scale, update, rollback, rm, logs",
    "node": "nodes: ls, ps, inspect, update, promote, demote, rm",
    "swarm": "the cluster: init, join, join-token, leave, update",
    "network": "networks: create, ls, inspect, rm",
    "image": "images of this node: import, load, ls, inspect, rm",
}
SYSTEM = {
    "ps": "list containers of this node",
    "run": "run a container on this node, in the background",
    "stop": "stop containers",
    "rm": "remove containers",
    "logs": "show a container's output",
    "inspect": "show containers in full",
    "info": "show this node and its place in the cluster",
    "version": "show versions of this command and of the daemon",
    "events": "show what happens to containers, as it happens",
}


class Parser(argparse.ArgumentParser):
    """argparse, with a guess at what was meant and one line instead of the usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = getattr(found, "parser", self)
            parser.refuse_unknown(unknown[0])
        return found

    def refuse_unknown(self, word: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(word.partition("=")[0], flags, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        what = "flag" if word.startswith("-") else "argument"
        self.error(f"unknown {what}: {word}{hint}")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nSee '{self.prog} --help'.\n")


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parser(words).parse_args(words)
    client = Client(host_from(args.daemon))
    try:
        return int(args.run(client, args) or 0)
    except (Refusal, TemplateError) as refusal:
        print(f"swarmctl: {refusal}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `swarmctl service ls | head -1`
        sys.stderr.close()
        return 141
    except KeyboardInterrupt:
        return 130


def _parser(words: Sequence[str]) -> Parser:
    parser = Parser(prog="swarmctl", description="Run containers on this host, and services on a cluster of hosts.")
    parser.add_argument(
        "-H",
        "--host",
        dest="daemon",
        metavar="ADDRESS",
        help="the daemon: unix:///path or tcp://address:port (also $SWARMCTL_HOST)",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    asked = _asked(words)
    for noun, text in NOUNS.items():
        group = commands.add_parser(noun, help=text, description=text)
        if noun == asked:
            verbs = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
            importlib.import_module(f"swarmd.swarmctl.commands.{noun}").add(verbs)
    if asked in SYSTEM:
        module = "system" if asked in ("info", "version", "events") else "container"
        importlib.import_module(f"swarmd.swarmctl.commands.{module}").add(commands)
    for name in SYSTEM:
        if name not in commands.choices:
            commands.add_parser(name, help=SYSTEM[name])
    return parser


def _asked(words: Sequence[str]) -> str:
    """The command: the first word that is neither a flag nor -H's value."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-H", "--host"):
            del rest[:1]
        elif not word.startswith("-"):
            return word
    return ""


if __name__ == "__main__":
    sys.exit(main())
