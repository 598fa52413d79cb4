"""Reads words as Docker's command line does, by a table of flags, and says what is wrong in one line.

Our own: argparse, with the modules that it needs, takes longer to load than most commands take to run.  It reads
--flag=false for any switch, -it and -p80:80 mixed, a value that starts with a dash, and ends the flags at the first
word of a command that is to run (`run IMAGE sh -c ...`).  help.py prints --help.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, NoReturn

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class BadValue(ValueError):
    """What a flag's `type` raises: a sentence that shows the right form."""


class Args:
    """What the words say, by the names of flags and arguments, and what the command set with `set_defaults`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class Flag:
    """kind: 'switch', 'text', 'several' or 'help'; dest: its name in Args."""

    __slots__ = ("choices", "default", "dest", "help", "kind", "metavar", "names", "required", "type")

    def __init__(
        self,
        kind: str,
        names: tuple[str, ...],
        help: str,
        metavar: str = "",
        type: Callable[[str], Any] = str,
        default: Any = None,
        dest: str = "",
        choices: Sequence[str] = (),
        required: bool = False,
    ) -> None:
        self.kind = kind
        self.names = names
        self.help = help
        self.metavar = metavar
        self.type = type
        self.default = default
        self.choices = choices
        self.required = required
        self.dest = dest or self.name.lstrip("-").replace("-", "_")

    @property
    def name(self) -> str:
        """The first long one, or the only one."""
        for name in self.names:
            if name.startswith("--"):
                return name
        return self.names[0]


class Argument:
    """A word that is no flag.  many: '' for one, '?' for one at most, '*' and '+' for several, '...' for all that
    follows, flags too."""

    __slots__ = ("choices", "default", "dest", "help", "many", "metavar", "type")

    def __init__(
        self,
        dest: str,
        metavar: str = "",
        many: str = "",
        help: str = "",
        type: Callable[[str], Any] = str,
        default: Any = None,
        choices: Sequence[str] = (),
    ) -> None:
        self.dest = dest
        self.metavar = metavar or "|".join(choices) or dest.upper()
        self.many = many
        self.help = help
        self.type = type
        self.default = default
        self.choices = choices

    @property
    def name(self) -> str:
        return self.metavar


class Parser:
    """`absent`: flags that Docker has and this has not, and why; refused when used, and told by --help to nobody."""

    def __init__(self, prog: str, description: str = "", usage: str = "") -> None:
        self.prog = prog
        self.description = description
        self.usage = usage
        self.usage_code = 2
        self.absent: dict[str, str] = {}
        self.arguments: list[Argument] = []
        self._named: dict[str, Flag] = {}
        self._set: dict[str, Any] = {}
        self._add(Flag("help", ("-h", "--help"), "show this"))

    # ------------------------------------------------------------ what commands add

    def switch(self, *names: str, help: str, default: bool | None = False) -> None:
        """true alone; --flag=false takes it back."""
        self._add(Flag("switch", names, help, "", boolean, default))

    def text(self, *names: str, help: str = "", metavar: str = "TEXT", **options: Any) -> None:
        """One value.  options: type, default, dest, choices, required."""
        self._add(Flag("text", names, help, metavar, **options))

    def several(self, *names: str, help: str = "", metavar: str = "TEXT", **options: Any) -> None:
        """A list of values: it may be repeated.  options: type, dest."""
        self._add(Flag("several", names, help, metavar, **options))

    def argument(self, dest: str, metavar: str = "", many: str = "", **options: Any) -> None:
        """A word that is no flag, in this place; `many` as Argument has it.  options: help, type, default, choices."""
        self.arguments.append(Argument(dest, metavar, many, **options))

    def command(self, *, required: bool = False) -> None:
        """A command and its arguments, which may have flags of their own."""
        self.argument("command" if required else "args", "COMMAND", "...")

    def lacks(self, flags: Mapping[str, str]) -> None:
        self.absent |= flags

    def set_defaults(self, **values: Any) -> None:
        """What Args has besides; above all `run`, the function that does the command."""
        self._set |= values

    def _add(self, flag: Flag) -> None:
        # `run` has -h for --hostname: the later one wins.
        for name in flag.names:
            self._named[name] = flag

    # ------------------------------------------------------------ reading

    def parse_args(self, words: Sequence[str]) -> Args:
        args = Args()
        given = args.__dict__
        for flag in self._named.values():
            given[flag.dest] = [] if flag.kind == "several" else flag.default
        given |= self._set
        seen: set[str] = set()
        self._arguments(self._flags(list(words), given, seen), given)
        for flag in self._named.values():
            if flag.required and flag.dest not in seen:
                self.error(f"{flag.name} is needed")
        return args

    def _flags(self, words: list[str], given: dict[str, Any], seen: set[str]) -> list[str]:
        """Take the flags; return the words that are none."""
        others: list[str] = []
        ends_at_first = bool(self.arguments) and self.arguments[-1].many == "..."
        words.reverse()
        while words:
            word = words.pop()
            if word == "--":
                break
            if word == "-" or not word.startswith("-"):
                others.append(word)
                if ends_at_first:
                    break
            elif word.startswith("--"):
                name, equals, value = word.partition("=")
                self._flag(name, value if equals else None, words, given, seen)
            else:
                self._letters(word[1:], words, given, seen)
        words.reverse()
        return others + words

    def _letters(self, letters: str, words: list[str], given: dict[str, Any], seen: set[str]) -> None:
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            flag = self._named.get(name)
            if flag is not None and letters and (flag.kind in ("text", "several") or letters.startswith("=")):
                self._flag(name, letters.removeprefix("="), words, given, seen)
                return
            self._flag(name, None, words, given, seen)

    def _flag(self, name: str, text: str | None, words: list[str], given: dict[str, Any], seen: set[str]) -> None:
        """words: what follows, last one first."""
        if name in self.absent:
            self.error(f"{name} is not available: {self.absent[name]}")
        flag = self._named.get(name)
        if flag is None:
            self._refuse_unknown("flag", name)
        if flag.kind == "help":
            self.print_help()
            raise SystemExit(0)
        if text is None:
            if flag.kind == "switch":
                text = "true"
            elif words:
                text = words.pop()
            else:
                self.error(f"flag {name} needs a value")
        value = self._value(flag, text)
        seen.add(flag.dest)
        if flag.kind == "several":
            given[flag.dest].append(value)
        else:
            given[flag.dest] = value

    def _arguments(self, words: list[str], given: dict[str, Any]) -> None:
        for argument in self.arguments:
            if argument.many in ("", "?"):
                given[argument.dest] = self._value(argument, words.pop(0)) if words else argument.default
                missing = not argument.many and given[argument.dest] is None
            else:
                given[argument.dest] = [self._value(argument, word) for word in words] or argument.default or []
                missing = argument.many == "+" and not words
                words = []
            if missing:
                self.error(f"{argument.metavar} is missing")
        if words:
            self._refuse_unknown("argument", words[0])

    def _value(self, one: Flag | Argument, text: str) -> Any:
        try:
            value = one.type(text)
        except BadValue as problem:
            self.error(f"{one.name}: {problem}")
        except ValueError as problem:
            self.error(f"{one.name}: {f'{text!r} is not a whole number' if one.type is int else problem}")
        if one.choices and value not in one.choices:
            self.error(f"{one.name}: invalid choice: {text!r} (choose from {', '.join(one.choices)})")
        return value

    # ------------------------------------------------------------ complaints and help

    def _refuse_unknown(self, what: str, word: str) -> NoReturn:
        self.error(f"unknown {what}: {word}{did_you_mean(word.partition('=')[0], [*self._named])}")

    def error(self, message: str) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.write(f"{self.prog}: {message}\nSee '{self.prog} --help'.\n")
        raise SystemExit(self.usage_code)

    def print_help(self) -> None:
        from swarmd.swarmctl.help import text_of

        print(text_of(self), flush=True)

    def options(self) -> Iterator[tuple[Flag, list[str]]]:
        """Flags in the order in which they were added, and the names that each has here."""
        for flag in dict.fromkeys(self._named.values()):
            yield flag, [name for name in flag.names if self._named[name] is flag]

    def flags(self) -> Iterator[str]:
        """Every long flag that --help shows."""
        for _, names in self.options():
            yield from (name for name in names if name.startswith("--"))

    def default_of(self, dest: str) -> Any:
        """What a flag is when it is not given."""
        for flag in self._named.values():
            if flag.dest == dest:
                return [] if flag.kind == "several" else flag.default
        raise KeyError(dest)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text not in _FALSE:
        raise BadValue(f"{text!r} is neither true nor false")
    return False
