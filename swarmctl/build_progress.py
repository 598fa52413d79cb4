"""Ways to show a build as it goes: nothing, the events themselves, plain lines; build_screen.py is one for terminals.

The daemon sends a line of JSON for what begins, is told, and ends; all that is shown is made of that here.  It goes to
standard error: standard output is for the image's id, or an archive.
"""

from __future__ import annotations

import time

from swarmd.swarmctl import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any


_TAIL = 10  # lines of a step that has failed
_TAIL_SIZE = 4096  # characters of them


class Built:
    """What came of a build: the image's id, the names it has got, and what the daemon warned of."""

    def __init__(self) -> None:
        self.id = ""
        self.names: list[str] = []
        self.warnings: list[str] = []
        self.done = self.cached = 0
        self.began = time.monotonic()

    def summary(self) -> str:
        named = f" as {', '.join(self.names)}" if self.names else ""
        steps = f"{self.done + self.cached} step{'s' * (self.done + self.cached != 1)}"
        cached = f", {self.cached} of them cached" if self.cached else ""
        return f"built {self.id[7:19]}{named} in {time.monotonic() - self.began:.1f}s: {steps}{cached}"


class Quiet:
    """Says nothing; the others say more."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def line(self, text: str) -> None:
        """As it came."""

    def sent(self, size: int, seconds: float) -> None:
        """The context is with the daemon."""

    def step(self, event: dict[str, Any]) -> None:
        """Something has become of a step."""

    def end(self, built: Built | None) -> None:
        """None: it has failed."""

    def write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class Silent(Quiet):
    """Shows nothing but the last lines of a step that has failed."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__(out)
        self._said: dict[int, str] = {}

    def step(self, event: dict[str, Any]) -> None:
        number, state = event["number"], event["state"]
        if state == "output":
            self._said[number] = (self._said.get(number, "") + event.get("data", ""))[-_TAIL_SIZE:]
            return
        lines = self._said.pop(number, "").splitlines()
        if state == "failed":
            self.write("".join(f"{line}\n" for line in lines[-_TAIL:]))


class Raw(Quiet):
    def line(self, text: str) -> None:
        self.write(f"{text}\n")


class Plain(Quiet):
    """A line for each event, which begins with the step's number."""

    def __init__(self, out: IO[str]) -> None:
        super().__init__(out)
        self._pending: dict[int, str] = {}  # output whose line has not ended

    def sent(self, size: int, seconds: float) -> None:
        self.write(f"#0 [context] {output.size(size)}\n#0 DONE {seconds:.1f}s\n\n")

    def step(self, event: dict[str, Any]) -> None:
        number, state, seconds = event["number"], event["state"], event["seconds"]
        if state == "output":
            *lines, rest = (self._pending.pop(number, "") + event.get("data", "")).split("\n")
            if rest:
                self._pending[number] = rest
            self.write("".join(f"#{number} {seconds:.3f} {line}\n" for line in lines))
            return
        if rest := self._pending.pop(number, ""):
            self.write(f"#{number} {seconds:.3f} {rest}\n")
        if state == "started":
            self.write(f"#{number} {title(event)}\n")
        elif state == "cached":
            self.write(f"#{number} CACHED\n\n")
        elif state == "done":
            self.write(f"#{number} DONE {seconds:.1f}s\n\n")
        elif state == "failed":
            self.write(f"#{number} ERROR\n\n")

    def end(self, built: Built | None) -> None:
        if built:
            self.write(f"{built.summary()}\n")


def title(event: dict[str, Any]) -> str:
    """'[build 2/4] RUN make'."""
    name = str(event.get("stage") or "")
    stage = f"stage-{name} " if name.isdigit() else f"{name} " if name else ""
    first, _, rest = event["text"].partition("\n")
    return f"[{stage}{event['place']}/{event['places']}] {first}{' ...' if rest else ''}"
