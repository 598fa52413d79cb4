"""Shows how images come and go: a line for each layer that is written over on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from swarmd.swarmctl import output, terminal
from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.jsontext import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO, Any

_BAR = 30  # characters


class Screen:
    """out: where to; quiet: say nothing, but still fail."""

    def __init__(self, out: IO[str] | None = None, *, quiet: bool = False) -> None:
        self._out = out or sys.stdout
        self._quiet = quiet
        self._size = terminal.size() if self._out.isatty() else None
        self._rows: dict[str, int] = {}  # in which row each layer is, since the last line without one
        self._began: dict[tuple[str, str], tuple[float, int]] = {}

    def follow(self, lines: Iterable[bytes]) -> list[dict[str, Any]]:
        """Show a stream of steps to its end; return what it says for programs. Refusal when it ends with an error."""
        asides = []
        for text in lines:
            step = loads(text) if text.strip() else {}
            if step.get("error"):
                raise Refusal(str(step["error"]))
            if step.get("aux"):
                asides.append(step["aux"])
            elif not self._quiet:
                self._show(step)
        return asides

    def _show(self, step: dict[str, Any]) -> None:
        id, detail = step.get("id") or "", step.get("progressDetail") or {}
        text = step.get("status") or step.get("stream", "").rstrip("\n")
        if not text:
            return
        if not self._size:
            if not detail:
                self._write(f"{id}: {text}\n" if id else f"{text}\n")
            return
        if not id:
            self._rows.clear()
            self._write(f"\r\033[K{text}\n")
            return
        line = f"{id}: {text}{self._progress(id, text, detail)}"[: self._size[1] - 1]
        up = len(self._rows) - self._rows.setdefault(id, len(self._rows))
        if up <= 0:
            self._write(f"\r\033[K{line}\n")
        elif up < self._size[0]:  # else it has left the screen
            self._write(f"\033[{up}A\r\033[K{line}\033[{up}B\r")

    def _progress(self, id: str, what: str, detail: dict[str, Any]) -> str:
        current, total = detail.get("current", 0), detail.get("total", 0)
        if not detail:
            return ""
        began, at_first = self._began.setdefault((id, what), (time.monotonic(), current))
        spent = time.monotonic() - began
        speed = f"  {output.size((current - at_first) / spent)}/s" if spent > 0.5 else ""
        if not total:
            return f" {output.size(current)}{speed}"
        done = min(_BAR, current * _BAR // total)
        bar = "=" * done + ">" * (done < _BAR)
        return f" [{bar.ljust(_BAR)}] {output.size(current)}/{output.size(total)}{speed}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
