"""What COPY and ADD choose from: the files of a build context, of a stage, of an image, of a directory; and the choice.

A tree is listed, with a digest of each file's content, before anything is copied: what a step would make has a key
before it is made.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from swarmd.runtime.build.dockerfile.checks import NOTHING, LeftOut
from swarmd.runtime.build.faults import WrongWord
from swarmd.runtime.build.modes import changed
from swarmd.runtime.build.patterns import BadPattern, has_wildcard, leaving_out, matches
from swarmd.runtime.errors import Invalid

_MOST_LINKS = 255  # that are followed on the way to one file


class Entry(NamedTuple):
    """As stages/snapshot.py writes it. path is relative to the tree's root; mtime in ns."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    digest: str
    link: str
    offset: int


_DECODER, _ENCODER = msgspec.json.Decoder(Entry), msgspec.json.Encoder()


class Tree:
    """source: how stages/snapshot.py finds the contents; name: in errors.

    left_out: says which pattern of a file, '' for none, has kept a path from coming here.
    """

    def __init__(
        self,
        name: str,
        entries: Iterable[Entry],
        source: Mapping[str, Any],
        left_out: LeftOut = NOTHING,
    ) -> None:
        self.name, self.source, self.left_out = name, source, left_out
        self.entries = {entry.path: entry for entry in entries}

    def below(self, path: str) -> Iterator[Entry]:
        """All that is in a directory, parents first."""
        start = f"{path}/" if path else ""
        return (entry for name, entry in self.entries.items() if name.startswith(start) and name)

    def resolved(self, path: str) -> str:
        """Follow links of the tree on the way to a path, which may itself be one to a directory."""
        end = self._walked(path, to_end=True)
        found = self.entries.get(end)
        return end if found is not None and found.kind == "d" else self._walked(path, to_end=False)

    def followed(self, link: Entry) -> Entry | None:
        """What a link leads to in the end, under the link's name; None where that is nowhere in this tree."""
        found = self.entries.get(self._walked(link.path, to_end=True))
        return None if found is None or found.kind == "l" else found._replace(path=link.path)

    def _walked(self, path: str, *, to_end: bool) -> str:
        """to_end: a link at the end is followed too."""
        done: list[str] = []
        left = [part for part in path.split("/") if part not in ("", ".")]
        links = 0
        while left:
            part = left.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            entry = self.entries.get("/".join((*done, part)))
            if entry is not None and entry.kind == "l" and (left or to_end) and links < _MOST_LINKS:
                links += 1
                if entry.link.startswith("/"):
                    done = []
                left = [*(p for p in entry.link.split("/") if p not in ("", ".")), *left]
            else:
                done.append(part)
        return "/".join(done)


class Placed(NamedTuple):
    """An entry and where it goes. into: if there is a directory at the place, then into that."""

    place: str
    into: bool
    entry: Entry


class Choice(NamedTuple):
    """What is copied, and how; words are those of the instruction, expanded.

    sources are relative to the tree's root.  owned: files belong to whom the tree says, else to root.
    """

    sources: Sequence[str]
    destination: str
    mode: str = ""
    parents: bool = False
    excludes: Sequence[str] = ()
    owned: bool = False


def read_list(path: Path) -> list[Entry]:
    """A list of stages/snapshot.py."""
    return [
        entry if entry.path.isascii() and entry.link.isascii() else _renamed(entry, _of_bytes)
        for entry in _DECODER.decode_lines(path.read_bytes())
    ]


def write_list(path: Path, placed: Iterable[Placed]) -> None:
    """One for stages/snapshot.py."""
    lines = ([_by_bytes(place), into, *_renamed(entry, _by_bytes)] for place, into, entry in placed)
    path.write_bytes(_ENCODER.encode_lines(lines))


def _renamed(entry: Entry, change: Callable[[str], str]) -> Entry:
    return entry._replace(path=change(entry.path), link=change(entry.link))


def _by_bytes(name: str) -> str:
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1")


def _of_bytes(name: str) -> str:
    return name.encode("latin-1").decode("utf-8", "surrogateescape")


def choose(tree: Tree, choice: Choice) -> list[Placed]:
    """What goes where, parents first. Raises Invalid naming a source that matches nothing, or that is no pattern."""
    try:
        return _chosen(tree, choice, leaving_out(choice.excludes))
    except BadPattern as error:
        raise Invalid(str(error)) from None


def _chosen(tree: Tree, choice: Choice, left_out: Callable[[str], str]) -> list[Placed]:
    found = [match for source in choice.sources for match in _matching(tree, source, follow=not choice.parents)]
    as_directory = choice.destination.endswith(("/", "/.")) or choice.destination == "." or len(found) > 1
    base = os.path.normpath(f"/{choice.destination}").lstrip("/")
    placed: dict[str, Placed] = {}
    for source, path in found:
        for place, into, entry in _placed(tree, source, path, base, as_directory, choice.parents):
            if not choice.excludes or not left_out(_excludable(entry.path, path)):
                placed[place] = Placed(place, into, _dressed(entry, choice))
    return [*placed.values()]


def linked(tree: Tree, sources: Iterable[str]) -> list[str]:
    """The links that patterns among some sources match."""
    plain = filter(has_wildcard, map(_plain, sources))
    return [path for one in plain for path, entry in tree.entries.items() if entry.kind == "l" and matches(one, path)]


def _plain(source: str) -> str:
    return os.path.normpath(f"/{source.replace('/./', '/')}").lstrip("/")


def _matching(tree: Tree, source: str, *, follow: bool) -> Iterator[tuple[str, str]]:
    """A source with each path that it means. A pattern may mean none: what is there by chance is named so."""
    plain = _plain(source)
    if not has_wildcard(plain):
        path = tree.resolved(plain)
        if path and path not in tree.entries:
            raise WrongWord(f"{source!r} is not in {tree.name}{_hint(tree, source, plain)}", source)
        yield source, path
        return
    for path in tree.entries:
        if matches(plain, path):
            yield source, tree.resolved(path) if follow else path


def _hint(tree: Tree, source: str, path: str) -> str:
    if source.startswith("../"):
        return ": what is above it is not sent to a build"
    file, left_out = tree.left_out
    if pattern := left_out(path):
        return f": {file} leaves it out with {pattern!r}"
    if not tree.entries:
        return ", which is empty"
    near = get_close_matches(path, tree.entries, 1)
    return f": did you mean {near[0]!r}?" if near else ""


def _placed(
    tree: Tree, source: str, path: str, base: str, as_directory: bool, parents: bool
) -> Iterator[tuple[str, bool, Entry]]:
    if parents:
        kept = path[len(_pivot(source)) :].lstrip("/")
        for above in _above(kept):
            entry = tree.entries.get(f"{_pivot(source)}{above}".lstrip("/"))
            if entry is not None:
                yield f"{base}/{above}".lstrip("/"), False, entry
        base, as_directory = f"{base}/{kept}".lstrip("/"), False
    top = tree.entries.get(path)
    if top is not None and top.kind == "l" and not parents:
        if (target := tree.followed(top)) is None:
            raise WrongWord(f"{path!r} in {tree.name} is a link to {top.link!r}, which is not there", source)
        top = target
    if top is None or top.kind == "d":
        if top is not None and base:
            yield base, False, top
        start, above = len(path) + bool(path), f"{base}/" if base else ""
        for entry in tree.below(path):
            yield above + entry.path[start:], False, entry
    elif as_directory:
        name = path.rpartition("/")[2]
        yield f"{base}/{name}".lstrip("/"), False, top
    else:
        yield base, not parents, top


def _pivot(source: str) -> str:
    """With --parents, what stands before /./ is not kept."""
    before, pivot, _ = source.partition("/./")
    return f"{os.path.normpath('/' + before).lstrip('/')}/" if pivot else ""


def _above(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: n + 1]) for n in range(len(parts)))


def _excludable(path: str, top: str) -> str:
    """Patterns of --exclude are relative to the source's directory."""
    return path[len(top) :].lstrip("/") or path.rpartition("/")[2]


def _dressed(entry: Entry, choice: Choice) -> Entry:
    if choice.mode and entry.kind != "l":
        entry = entry._replace(mode=changed(entry.mode, choice.mode, entry.kind == "d"))
    return entry if choice.owned or not (entry.uid or entry.gid) else entry._replace(uid=0, gid=0)


def digest(placed: Iterable[Placed]) -> str:
    """Of what would be made: of names, kinds, modes, owners, contents and links, not of times.

    It is in the keys of caches everywhere: lines are what json.dumps makes of these fields, in a quarter of its time.
    """
    said = encode_basestring_ascii
    lines = [
        f'[{said(place)}, {"true" if into else "false"}, "{one.kind}", {one.mode}, {one.uid}, {one.gid}, '
        f'"{one.digest}", {said(one.link)}]'
        for place, into, one in sorted(placed, key=itemgetter(0))
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
