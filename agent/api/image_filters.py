"""The filters of image listings and of their prune: label, reference, dangling, before, since, until."""

import re
from collections.abc import Sequence
from functools import lru_cache

from swarmd.agent.api import query
from swarmd.agent.api.image_json import created
from swarmd.proto.errors import Invalid
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.references import Reference, familiar
from swarmd.runtime.images.store import ImageStore

LISTING = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE = frozenset({"dangling", "label", "label!", "until"})
_IN_CLASS, _ESCAPED = re.compile(r"([\\\[&~|^])"), r"\\\1"  # what only Python's regular expressions know there
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def selected(store: ImageStore, wanted: dict[str, tuple[str, ...]]) -> list[tuple[Image, tuple[str, ...]]]:
    """The images that are wanted, latest first, each with the names to show: with `reference`, those that match."""
    patterns = [_pattern(text) for text in wanted.get("reference", ())]
    keeps = _Times(store, wanted)
    found = []
    for image in store.list():
        refs = tuple(ref for ref in image.refs if not patterns or _matches(ref, patterns))
        if (refs or not patterns) and keeps.image(image) and _labelled(image, wanted) and _dangles(image, wanted):
            found.append((image, refs))
    return sorted(found, key=lambda pair: created(pair[0]), reverse=True)


class _Times:
    """before and since name images, until a moment."""

    def __init__(self, store: ImageStore, wanted: dict[str, tuple[str, ...]]) -> None:
        self._before = [created(store.get(ref)) for ref in wanted.get("before", ())]
        self._before += [-(-query.instant(text) // 10**9) for text in wanted.get("until", ())]
        self._since = [created(store.get(ref)) for ref in wanted.get("since", ())]

    def image(self, image: Image) -> bool:
        made = created(image)
        return all(made < limit for limit in self._before) and all(made > limit for limit in self._since)


def _labelled(image: Image, wanted: dict[str, tuple[str, ...]]) -> bool:
    labels = image.config.labels
    known = labels.keys() | {f"{key}={value}" for key, value in labels.items()}
    return known.issuperset(wanted.get("label", ())) and known.isdisjoint(wanted.get("label!", ()))


def _dangles(image: Image, wanted: dict[str, tuple[str, ...]]) -> bool:
    choice = truth(wanted, "dangling")
    return choice is None or choice == (not image.refs)


def truth(wanted: dict[str, tuple[str, ...]], name: str) -> bool | None:
    """A filter that is true or false; None if it isn't given."""
    values = wanted.get(name, ())
    found = {_TRUTH.get(value.lower()) for value in values}
    if None in found or len(found) > 1:
        raise Invalid(f"filter {name} is neither true nor false: {', '.join(values)}")
    return found.pop() if found else None


def _matches(ref: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    shown = (familiar(ref), familiar(Reference.parse(ref).repository))
    return any(pattern.fullmatch(name) for pattern in patterns for name in shown)


@lru_cache(maxsize=64)
def _pattern(glob: str) -> re.Pattern[str]:
    """A shell pattern as in Go's path.Match: no wildcard stands for a slash."""
    out, at = "", 0
    while at < len(glob):
        letter = glob[at]
        if letter == "[" and (end := glob.find("]", at + 2 + glob.startswith("^", at + 1))) > 0:
            inner = glob[at + 1 : end]
            negated, inner = inner.startswith("^"), inner.removeprefix("^")
            out += f"[{'^' if negated else ''}{_IN_CLASS.sub(_ESCAPED, inner)}]"
            at = end
        elif letter == "\\" and at + 1 < len(glob):
            at += 1
            out += re.escape(glob[at])
        elif letter in "[\\":
            raise Invalid(f"filter reference {glob[:100]!r} is no pattern: it ends inside of {letter!r}")
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(letter) or re.escape(letter)
        at += 1
    try:
        return re.compile(out)
    except re.error as error:
        raise Invalid(f"filter reference {glob[:100]!r} is no pattern: {error}") from None
