"""Reads what the daemon tells of a build, and has it shown in the way that is asked for."""

from __future__ import annotations

import sys
import time

from swarmd.swarmctl import terminal
from swarmd.swarmctl.build_output import PASSING
from swarmd.swarmctl.build_progress import Built, Plain, Quiet, Raw, Silent
from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.jsontext import loads
from swarmd.swarmctl.parser import Args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swarmd.swarmctl.build_context import Context
    from swarmd.swarmctl.http import Response

_STEP_FAILED = 1


def display(args: Args) -> Quiet:
    how, err = "quiet" if args.quiet else args.progress, sys.stderr
    at_terminal = terminal.size(err) if err.isatty() else None
    if how == "tty" and at_terminal is None:
        raise Refusal("--progress tty needs a terminal as standard error")
    if how == "tty" or (how == "auto" and at_terminal):
        from swarmd.swarmctl.build_screen import Screen

        return Screen(err)
    kinds: dict[str, type[Quiet]] = {"quiet": Silent, "rawjson": Raw}
    return kinds.get(how, Plain)(err)


class Watch:
    """Reads what the daemon sends, and has it shown."""

    def __init__(self, shown: Quiet, context: Context | None) -> None:
        self._shown, self._context = shown, context
        self._built = Built()

    @property
    def warnings(self) -> list[str]:
        """So far."""
        return self._built.warnings

    def sending(self, content: Iterator[bytes]) -> Iterator[bytes]:
        """The context on its way."""
        size = 0
        for piece in content:
            size += len(piece)
            yield piece
        if size:
            self._shown.sent(size, time.monotonic() - self._built.began)
        if self._context:
            from swarmd.swarmctl.build_context import warn

            warn(self._context.skipped)

    def follow(self, ask: Callable[[], Response]) -> Built:
        """ask: sends the request. Refusal with the daemon's words when the build fails."""
        built = self._built
        try:
            with ask() as response:
                for line in response:
                    if line.strip():
                        self._take(line.decode(errors="replace"))
        except BaseException:
            self._shown.end(None)
            raise
        self._shown.end(built if built.id else None)
        return built

    def _take(self, text: str) -> None:
        event, built = loads(text), self._built
        self._shown.line(text)
        if event.get("error"):
            detail = event.get("errorDetail") or {}
            raise Refusal(str(event["error"]), code=int(detail.get("code") or _STEP_FAILED))
        if step := event.get("step"):
            built.done += step["state"] == "done"
            built.cached += step["state"] == "cached"
            self._shown.step(step)
        elif event.get("warning"):
            built.warnings.append(event["warning"])
        elif event.get("aux"):
            built.id = event["aux"].get("ID", built.id)
        elif event.get("named") and not event["named"].startswith(f"{PASSING}:"):
            built.names.append(event["named"])
