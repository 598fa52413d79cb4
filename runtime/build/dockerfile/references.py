"""What COPY --from and RUN --mount=from say of other stages: only stages that stand before may be named."""

from collections.abc import Iterator

from swarmd.runtime.build.dockerfile.instructions import Copy, Instruction, Run, Stage
from swarmd.runtime.build.dockerfile.lines import Line


def wrong_references(stages: tuple[Stage, ...]) -> Iterator[tuple[Line, str, str]]:
    """Line, sentence and word of each reference that no build can follow. A name of no stage is that of an image."""
    for stage in stages:
        for one in stage.instructions:
            for name in _named(one):
                if why := _wrong(stages, stage, name):
                    yield one.line, why, name


def _named(one: Instruction) -> list[str]:
    if isinstance(one, Copy):
        found = [one.from_]
    elif isinstance(one, Run):
        found = [option[5:] for mount in one.mounts for option in mount.split(",") if option.startswith("from=")]
    else:
        found = []
    return [name for name in found if name and "$" not in name]


def _wrong(stages: tuple[Stage, ...], stage: Stage, name: str) -> str:
    before = stages[: stage.index]
    if name.isascii() and name.isdigit():
        if int(name[:9]) < stage.index or any(one.name == name for one in before):
            return ""
        there = f"stages before this one are 0 to {stage.index - 1}" if stage.index else "this is the first stage"
        return f"there is no stage {name} to take files from: {there}"
    if any(one.name == name.lower() for one in before):
        return ""
    if name.lower() == stage.name:
        return f"stage {name} can't take files from itself"
    if any(one.name == name.lower() for one in stages):
        return f"stage {name} comes later: files can be taken from the stages before this one"
    return ""
