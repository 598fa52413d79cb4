"""Which stages of a Dockerfile a build needs, and what their names mean: pure; solver.py runs them."""

from collections.abc import Iterator

import msgspec

from swarmd.runtime.build.dockerfile.errors import near
from swarmd.runtime.build.dockerfile.instructions import Copy, Dockerfile, Run, Stage
from swarmd.runtime.build.named import Named
from swarmd.runtime.errors import Invalid


class Graph:
    def __init__(self, made: Dockerfile, named: Named) -> None:
        self._made, self._named = made, named

    def stage(self, name: str) -> Stage:
        """The stage that a flag names; the last one for no name. Raises Invalid."""
        if not name:
            return self._made.stages[-1]
        found = self._made.stage(name)
        if found is None:
            names = [stage.name for stage in self._made.stages]
            hint = near(name, names) or f": it has {', '.join(names)}"
            raise Invalid(f"{self._made.file} has no stage {name!r}{hint}")
        return found

    def reached(self, target: Stage) -> list[Stage]:
        """All that a stage needs, itself included."""
        found: dict[int, Stage] = {}
        waiting = [target]
        while waiting:
            stage = waiting.pop()
            if stage.index not in found:
                found[stage.index] = stage
                waiting += self.needed(stage)
        return [*found.values()]

    def needed(self, stage: Stage) -> Iterator[Stage]:
        """The stages before this one that its instructions name in so many words."""
        names = [stage.begin.image]
        for one in stage.instructions:
            if isinstance(one, Copy):
                names.append(one.from_)
            elif isinstance(one, Run):
                names += [part[5:] for mount in one.mounts for part in mount.split(",") if part.startswith("from=")]
        for name in names:
            if name and (found := self.before(stage, name)):
                yield found

    def before(self, stage: Stage, name: str) -> Stage | None:
        """A stage that stands before another; an image or a named context where there is none."""
        if self._named.has(name):
            return None
        earlier = msgspec.structs.replace(self._made, stages=self._made.stages[: stage.index])
        return earlier.stage(name)
