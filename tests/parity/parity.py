"""What of Docker's command line swarmctl has: python tests/parity/parity.py [COMMAND...]

docker-28.tsv has every command of Docker's CLI 28 with its flags.  swarmctl's are read from its parsers, so this cannot
say more than there is.  `tests/parity/test_parity.py` holds what is complete.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmd.swarmctl.commands import GROUPS, SHORT
from swarmd.swarmctl.main import find
from swarmd.swarmctl.parser import Parser

_TABLE = Path(__file__).parent / "docker-28.tsv"


@dataclass(frozen=True)
class Gap:
    """missing: flags, or None when the whole command is. absent: flags that are refused with a reason."""

    command: str
    flags: int
    missing: tuple[str, ...] | None
    absent: tuple[str, ...] = ()


def docker() -> dict[str, tuple[str, ...]]:
    """Every command that does something, with its flags; `docker image` alone is no command."""
    lines = [line.split("\t") for line in _TABLE.read_text().splitlines()[1:]]
    found = {command: tuple(flags.split()) for command, flags in lines}
    groups = {command.rpartition(" ")[0] for command in found} | {
        "builder",
        "checkpoint",
        "manifest",
        "plugin",
        "trust",
    }
    return {command: flags for command, flags in found.items() if command not in groups}


def parser_of(command: str) -> Parser | None:
    words = command.split()
    known = GROUPS[words[0]][1] if words[0] in GROUPS else SHORT
    name = words[1] if words[0] in GROUPS else words[0]
    return find(words) if name in known else None


def gaps(commands: Sequence[str] = ()) -> Iterator[Gap]:
    """Of each command, or of those that begin with these words."""
    for command, flags in docker().items():
        if commands and not any(f"{command} ".startswith(f"{start} ") for start in commands):
            continue
        parser = parser_of(command)
        if parser is None:
            yield Gap(command, len(flags), None)
            continue
        has = {*parser.flags()}
        absent = tuple(flag for flag in flags if flag in parser.absent)
        yield Gap(command, len(flags), tuple(flag for flag in flags if flag not in {*has, *absent}), absent)


def main() -> int:
    found = [*gaps(sys.argv[1:])]
    for gap in found:
        if gap.missing is None:
            print(f"{gap.command}: not there")
        elif gap.missing or gap.absent:
            refused = f"{' ' if gap.missing else ''}refused: {' '.join(gap.absent)}" if gap.absent else ""
            print(f"{gap.command}: {' '.join(gap.missing)}{refused}")
    there = [gap for gap in found if gap.missing is not None]
    flags = sum(gap.flags for gap in found)
    missing = sum(gap.flags if gap.missing is None else len(gap.missing) for gap in found)
    refused_flags = sum(len(gap.absent) for gap in found)
    print(f"commands: {len(there)} of {len(found)}")
    print(f"flags: {flags - missing - refused_flags} of {flags}, and {refused_flags} refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
