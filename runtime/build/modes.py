"""--chmod of COPY and ADD: octal numbers, and the symbolic modes of chmod(1)."""

import re

from swarmd.runtime.build.faults import WrongWord

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)", re.ASCII)
_ACTION = re.compile(r"([-+=])([rwxXst]*)", re.ASCII)
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_WHAT = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


def check(text: str) -> None:
    """Raises WrongWord for what is no mode."""
    changed(0, text, False)


def changed(mode: int, text: str, directory: bool) -> int:
    """The mode that `text` makes of `mode`; X is x for directories and for what somebody may execute already."""
    if re.fullmatch("[0-7]{1,4}", text):
        return int(text, 8)
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            why = f"--chmod={text} is no mode: give an octal number like 755, or changes like u=rwX,go=rX"
            raise WrongWord(why, text)
        who = 0
        for letter in found[1].replace("a", "ugo") or "ugo":
            who |= _WHO[letter]
        for action, letters in _ACTION.findall(found[2]):
            bits = 0
            for letter in letters:
                if letter == "X":
                    letter = "x" if directory or mode & 0o111 else ""
                bits |= _WHAT.get(letter, 0)
            bits &= who | (0o1000 if "t" in letters else 0)
            mode = mode | bits if action == "+" else mode & ~bits if action == "-" else (mode & ~who) | bits
    return mode
