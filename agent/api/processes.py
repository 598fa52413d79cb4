"""GET /containers/{id}/top: a container's processes as ps(1) lists them, read from /proc: the daemon forks nothing."""

import os
import pwd
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Invalid

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE") // 1024
_MEMORY = os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True, slots=True)
class Process:
    """stat: the fields of /proc/<pid>/stat after the name, the first being the state; age: seconds since it began."""

    pid: int
    name: str
    uid: int
    command: str
    stat: Sequence[str]
    age: float

    @property
    def busy(self) -> float:
        return (int(self.stat[11]) + int(self.stat[12])) / _TICK


def read(pid: int) -> Process | None:
    """None when it has ended meanwhile."""
    place = Path(f"/proc/{pid}")
    try:
        head, _, tail = (place / "stat").read_text().rpartition(")")
        name, stat = head.partition("(")[2], tail.split()
        words = (place / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        uid = place.stat().st_uid
    except (OSError, ValueError):
        return None
    command = b" ".join(words).decode(errors="replace") or f"[{name}]"
    return Process(pid, name, uid, command, stat, max(0.0, uptime - int(stat[19]) / _TICK))


def _user(process: Process) -> str:
    try:
        return pwd.getpwuid(process.uid).pw_name
    except KeyError:
        return str(process.uid)


def _terminal(process: Process) -> str:
    number = int(process.stat[4])
    return f"pts/{(number & 0xFF) | (number >> 12 & 0xFFF00)}" if number >> 8 & 0xFFF == 136 else "?"


def _started(process: Process) -> str:
    return time.strftime("%H:%M" if process.age < 86400 else "%b%d", time.localtime(time.time() - process.age))


def _time(process: Process) -> str:
    seconds = int(process.busy)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _elapsed(process: Process) -> str:
    seconds = int(process.age)
    days = f"{seconds // 86400}-" if seconds >= 86400 else ""
    hours = f"{seconds // 3600 % 24:02}:" if seconds >= 3600 else ""
    return f"{days}{hours}{seconds // 60 % 60:02}:{seconds % 60:02}"


def _share(process: Process) -> float:
    return 100 * process.busy / process.age if process.age else 0.0


Column = tuple[str, Callable[[Process], str]]
COLUMNS: dict[str, Column] = {
    "uid": ("UID", _user),
    "user": ("USER", _user),
    "euser": ("USER", _user),
    "pid": ("PID", lambda p: str(p.pid)),
    "ppid": ("PPID", lambda p: p.stat[1]),
    "pgid": ("PGID", lambda p: p.stat[2]),
    "sid": ("SID", lambda p: p.stat[3]),
    "c": ("C", lambda p: str(int(_share(p)))),
    "stime": ("STIME", _started),
    "start": ("START", _started),
    "tty": ("TTY", _terminal),
    "time": ("TIME", _time),
    "etime": ("ELAPSED", _elapsed),
    "cmd": ("CMD", lambda p: p.command),
    "args": ("COMMAND", lambda p: p.command),
    "command": ("COMMAND", lambda p: p.command),
    "comm": ("COMMAND", lambda p: p.name),
    "stat": ("STAT", lambda p: p.stat[0]),
    "state": ("S", lambda p: p.stat[0]),
    "s": ("S", lambda p: p.stat[0]),
    "ni": ("NI", lambda p: p.stat[16]),
    "nlwp": ("NLWP", lambda p: p.stat[17]),
    "vsz": ("VSZ", lambda p: str(int(p.stat[20]) // 1024)),
    "rss": ("RSS", lambda p: str(int(p.stat[21]) * _PAGE)),
    "%cpu": ("%CPU", lambda p: f"{_share(p):.1f}"),
    "pcpu": ("%CPU", lambda p: f"{_share(p):.1f}"),
    "%mem": ("%MEM", lambda p: f"{100 * int(p.stat[21]) / _MEMORY:.1f}"),
    "pmem": ("%MEM", lambda p: f"{100 * int(p.stat[21]) / _MEMORY:.1f}"),
}
_FULL = ("uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_BY_USER = ("user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command")
_FORMS = {"": _FULL, "-ef": _FULL, "-f": _FULL, "ef": _FULL, "aux": _BY_USER, "-aux": _BY_USER, "u": _BY_USER}


def columns(text: str) -> list[Column]:
    """Of ps's options. Raises Invalid for those that are not known."""
    words = text.split()
    if " ".join(words) in _FORMS:
        return [COLUMNS[name] for name in _FORMS[" ".join(words)]]
    names: list[str] = []
    while words:
        word = words.pop(0)
        if word in ("-o", "-eo", "o", "-ao"):
            names += (words.pop(0) if words else "").split(",")
        elif word.startswith(("-o", "-eo")):
            names += word.partition("o")[2].split(",")
        elif word not in ("-e", "-A", "-a"):
            raise Invalid(f"ps options {text!r} are not known: use -ef, aux, or -o with columns")
    if not names:
        return [COLUMNS[name] for name in _FULL]
    for name in names:
        if name.lower() not in COLUMNS:
            raise Invalid(f"ps column {name!r} is not known: there are {', '.join(COLUMNS)}")
    return [COLUMNS[name.lower()] for name in names]


async def top(request: web.Request) -> web.Response:
    asked = columns(request.query.get("ps_args", ""))
    found = [process for pid in services(request).engine.pids(request.match_info["id"]) if (process := read(pid))]
    found.sort(key=lambda process: process.pid)
    rows = [[value(process) for _, value in asked] for process in found]
    return answer({"Titles": [title for title, _ in asked], "Processes": rows})
