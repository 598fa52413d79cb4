"""A build on a terminal: a row for each step with its time, below those that run what they said last.

    [+] 2.3s, 3 of 7 steps, 1 running
     CACHED  [1/4] FROM debian
     1.2s    [build 2/4] RUN make
             | cc -O2 -c main.c

All rows are written over, ten times a second, so that the times run; rows that do not fit stay away until the end.
"""

from __future__ import annotations

import threading
import time

from swarmd.swarmctl import output, terminal
from swarmd.swarmctl.build_progress import Built, Quiet, title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

_TAIL = 4  # lines of what a running step says
_EVERY = 0.1  # s


class _Row:
    def __init__(self, title: str) -> None:
        self.title = title
        self.state = "started"
        self.began = time.monotonic()
        self.seconds = 0.0
        self.said: list[str] = [""]

    @property
    def runs(self) -> bool:
        return self.state in ("started", "output")

    def hear(self, text: str) -> None:
        lines = (self.said.pop() + text).split("\n")
        self.said = [*self.said, *lines][-_TAIL - 1 :]

    def mark(self) -> str:
        if self.state in ("cached", "failed"):
            return "CACHED" if self.state == "cached" else "ERROR"
        seconds = time.monotonic() - self.began if self.runs else self.seconds
        return f"{seconds:.1f}s"


class Screen(Quiet):
    def __init__(self, out: IO[str]) -> None:
        super().__init__(out)
        self._began = time.monotonic()
        self._rows: dict[int, _Row] = {}
        self._count = 0
        self._drawn = 0  # lines that are on the screen now
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def sent(self, size: int, seconds: float) -> None:
        with self._lock:
            row = self._rows.setdefault(0, _Row(f"[context] {output.size(size)}"))
            row.state, row.seconds = "done", seconds
            self._draw()

    def step(self, event: dict[str, Any]) -> None:
        with self._lock:
            row = self._rows.setdefault(event["number"], _Row(title(event)))
            row.state, row.seconds, self._count = event["state"], event["seconds"], event["count"]
            if row.state == "output":
                row.hear(event.get("data", ""))
                return  # the next tick shows it
            self._draw()

    def end(self, built: Built | None) -> None:
        self._ended.set()
        self._ticker.join()
        with self._lock:
            self._draw(last=True)
            if built:
                self.write(f"{built.summary()}\n")

    def _tick(self) -> None:
        while not self._ended.wait(_EVERY):
            with self._lock:
                self._draw()

    def _draw(self, *, last: bool = False) -> None:
        rows, columns = terminal.size(self._out) or (24, 80)
        lines = self.lines(0 if last else max(3, rows - 1))
        up = f"\033[{self._drawn}A" if self._drawn else ""
        self.write(up + "\r\033[J" + "".join(f"{line[: columns - 1]}\n" for line in lines))
        self._drawn = len(lines)

    def lines(self, room: int) -> list[str]:
        """At most so many, 0 for all: of steps that have ended the first stay away."""
        running = [row for row in self._rows.values() if row.runs]
        ended = sum(not row.runs for number, row in self._rows.items() if number)
        head = f"[+] {time.monotonic() - self._began:.1f}s"
        if self._count:
            head += f", {ended} of {self._count} steps" + (f", {len(running)} running" if running else "")
        parts = [(row.runs, _of(row)) for row in self._rows.values()]
        total = 1 + sum(len(part) for _, part in parts)
        while room and total > room:
            at = next((i for i, (runs, _) in enumerate(parts) if not runs), None)
            if at is None:
                break
            total -= len(parts.pop(at)[1])
        found = [head, *(line for _, part in parts for line in part)]
        return found[:room] if room else found


def _of(row: _Row) -> list[str]:
    lines = [f" {row.mark():<7} {row.title}"]
    if row.runs or row.state == "failed":
        said = [text for line in row.said if (text := _printable(line))]
        lines += [f"         | {text}" for text in said[-_TAIL:]]
    return lines


def _printable(line: str) -> str:
    """What would stand there: without what moves the cursor or changes colours."""
    text = line.rstrip("\r").rpartition("\r")[2]
    if "\033" in text:
        import re

        text = re.sub(r"\033(?:\[[0-9;?]*[ -/]*[@-~]|\][^\a\033]*(?:\a|\033\\)?|.)", "", text)
    return "".join(letter if letter.isprintable() else " " for letter in text).rstrip()
