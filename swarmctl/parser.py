"""argparse that reads words as Docker's command line does, and says what is wrong in one line.

What argparse alone would not do: --flag=false for any switch, -it and -p80:80 mixed, a value that starts with a dash,
and an end of the flags at the first word of a command that is to run (`run IMAGE sh -c ...`).  Words are brought into
one form, --flag=value, before argparse sees them.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

_TO_THE_END = (argparse.REMAINDER, argparse.PARSER)
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

_COLUMNS = os.environ.get("COLUMNS", "")
_WIDTH = int(_COLUMNS) if _COLUMNS.isdigit() else 100


class _Formatter(argparse.HelpFormatter):
    """-u, --user USER: the value once, and none for a switch."""

    def __init__(self, prog: str) -> None:
        # argparse makes a formatter for each flag, and without a width each asks the terminal by way of shutil.
        super().__init__(prog, max_help_position=36, width=_WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = action.metavar if isinstance(action.metavar, str) else None
        if value is None and action.nargs is None:
            value = action.dest.upper()
        # A switch's =true and =false are read like flags, and shown by none.
        names = ", ".join(name for name in action.option_strings if "=" not in name)
        return f"{'' if names.startswith('-') and names[1] != '-' else '    '}{names} {value or ''}".rstrip()

    def _format_usage(self, usage: Any, *rest: Any) -> str:
        return super()._format_usage(usage, *rest).replace("usage: ", "Usage: ", 1)


class Parser(argparse.ArgumentParser):
    """`absent`: flags that Docker has and this has not, and why; refused when used, and told by --help to nobody."""

    def __init__(self, **options: Any) -> None:
        # `run` has -h for --hostname: the later one wins.
        options = {"formatter_class": _Formatter, **options}
        super().__init__(allow_abbrev=False, conflict_handler="resolve", add_help=False, **options)
        self.usage_code = 2
        self.absent: dict[str, str] = {}
        self.add_argument("-h", "--help", action="help", help="show this")

    # ------------------------------------------------------------ what commands add

    def switch(self, *names: str, help: str, default: bool = False) -> None:
        """true alone; --flag=false takes it back."""
        self.add_argument(*names, nargs="?", const=True, type=boolean, default=default, metavar="", help=help)

    def text(self, *names: str, help: str, metavar: str = "TEXT", **options: Any) -> None:
        self.add_argument(*names, metavar=metavar, help=help, **options)

    def several(self, *names: str, help: str, metavar: str = "TEXT", **options: Any) -> None:
        """May be repeated."""
        self.add_argument(*names, action="append", default=[], metavar=metavar, help=help, **options)

    def command(self, *, required: bool = False) -> None:
        """A command and its arguments, which may have flags of their own."""
        name = "command" if required else "args"
        self.add_argument(name, nargs=argparse.REMAINDER, metavar="COMMAND")

    def lacks(self, flags: Mapping[str, str]) -> None:
        self.absent |= flags

    # ------------------------------------------------------------ reading

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = getattr(found, "parser", self)
            parser.refuse_unknown(unknown[0])
        return found

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(self._plain(args), namespace)

    def _plain(self, words: Sequence[str]) -> list[str]:
        flags: list[str] = []
        others: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                others += rest
                break
            if word == "-" or not word.startswith("-"):
                others.append(word)
                if not self._interspersed():
                    others += rest
                    break
            elif word.startswith("--"):
                self._long(word, rest, flags)
            else:
                self._cluster(word[1:], rest, flags)
        # The first of the rest may start with a dash; argparse would keep the mark where all of the rest is one value.
        first = next((action for action in self._actions if not action.option_strings), None)
        mark = ["--"] if others and (first is None or first.nargs not in _TO_THE_END) else []
        return [*flags, *mark, *others]

    def _interspersed(self) -> bool:
        return not any(action.nargs in _TO_THE_END for action in self._actions if not action.option_strings)

    def _long(self, word: str, rest: list[str], flags: list[str]) -> None:
        name, equals, value = word.partition("=")
        if word in self._option_string_actions:
            name, equals = word, ""
        self._emit(name, value if equals else None, rest, flags)

    def _cluster(self, letters: str, rest: list[str], flags: list[str]) -> None:
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            action = self._option_string_actions.get(name)
            if action is not None and letters and (action.nargs is None or letters.startswith("=")):
                self._emit(name, letters.removeprefix("="), rest, flags)
                return
            self._emit(name, None, rest, flags)

    def _emit(self, name: str, value: str | None, rest: list[str], flags: list[str]) -> None:
        if name in self.absent:
            self.error(f"{name} is not available: {self.absent[name]}")
        action = self._option_string_actions.get(name)
        if action is None:
            self.refuse_unknown(name)
        if action.nargs == 0:
            if value is not None and boolean(value) is False:
                flags[:] = [flag for flag in flags if flag not in action.option_strings]
            else:
                flags.append(name)
            return
        if value is None and action.nargs == "?":
            value = "true"
        if value is None:
            if not rest:
                self.error(f"flag {name} needs a value")
            value = rest.pop(0)
        longest = max(action.option_strings, key=len)
        flags.append(f"{longest}={value}" if longest.startswith("--") else f"{longest}{value}")

    # ------------------------------------------------------------ complaints and help

    def refuse_unknown(self, word: str) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        what = "flag" if word.startswith("-") else "argument"
        self.error(f"unknown {what}: {word}{did_you_mean(word.partition('=')[0], flags)}")

    def error(self, message: str) -> NoReturn:
        self.exit(self.usage_code, f"{self.prog}: {message}\nSee '{self.prog} --help'.\n")

    def flags(self) -> Iterator[str]:
        """Every long flag that --help shows."""
        for action in self._actions:
            yield from (flag for flag in action.option_strings if flag.startswith("--") and "=" not in flag)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def boolean(text: str) -> bool:
    if text not in (*_TRUE, *_FALSE):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text in _TRUE
