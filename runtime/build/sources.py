"""What one COPY or ADD takes, from wherever it comes: trees, and what of each goes where."""

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

from swarmd.runtime.build import remotes
from swarmd.runtime.build.dockerfile import expand
from swarmd.runtime.build.dockerfile.instructions import Copy
from swarmd.runtime.build.faults import WrongWord
from swarmd.runtime.build.interfaces import AnyStage
from swarmd.runtime.build.modes import check
from swarmd.runtime.build.patterns import has_wildcard, matches
from swarmd.runtime.build.trees import Choice, Entry, Placed, Tree, choose, linked
from swarmd.runtime.errors import Invalid
from swarmd.runtime.images.store import in_thread
from swarmd.runtime.images.unpacking.compression import compression_of

_REMOTE_MODE = 0o600
_TAR_MAGIC = slice(257, 262)


class Batch(NamedTuple):
    """tree None: nothing has content, as of directories."""

    tree: Tree | None
    placed: list[Placed]


async def gather(run: AnyStage, one: Copy, place: Path) -> list[Batch]:
    """place: a directory for what is fetched or unpacked on the way."""
    mode = run.word(one.mode)
    if mode:
        check(mode)
    sources = [run.word(source) for source in one.sources]
    destination = run.word(one.destination)
    whole = destination if destination.startswith("/") else f"{run.snapshot.config.workdir or '/'}/{destination}"
    several = len(sources) + len(one.contents) > 1
    if several and not destination.endswith(("/", "/.")) and destination != ".":
        raise WrongWord(f"{destination!r} has to end with a slash: several things are copied into it", destination)
    if one.checksum and (several or not all(map(remotes.is_remote, sources))):
        raise WrongWord("--checksum is for one thing that comes from a URL or a repository", "--checksum")
    choice = Choice((), whole, mode, one.parents, tuple(map(run.word, one.excludes)))
    batches: list[Batch] = []
    local = [source for source in sources if not (one.add and remotes.is_remote(source))]
    if local:
        batches += await _local(run, one, choice._replace(sources=local), place)
    for source in sources:
        if one.add and remotes.is_remote(source):
            batches.append(await _remote(run, one, source, choice, place))
    if one.contents:
        batches.append(await _written(run, one, choice, place))
    return batches


async def _local(run: AnyStage, one: Copy, choice: Choice, place: Path) -> list[Batch]:
    if one.from_:
        name, paths = run.word(one.from_), [_literal(source) for source in choice.sources]
        tree = await run.tree_of(name, paths, follow=not choice.parents)
        if links := [] if choice.parents else linked(tree, choice.sources):
            more = await run.tree_of(name, links)
            tree.entries.update(more.entries)
        return [Batch(tree, _chosen(run, one, tree, choice._replace(owned=True)))]
    tree = run.build.context
    placed = _chosen(run, one, tree, choice)
    if not one.add or one.unpack is False:
        return [Batch(tree, placed)]
    batches, plain = [], []
    for found in placed:
        if _is_source(found.entry, choice) and await in_thread(partial(_is_archive, tree, found.entry)):
            archive = await in_thread(partial(_extract, tree, found.entry, place))
            batches.append(await _unpacked(run, archive, choice, place))
        else:
            plain.append(found)
    return [*([Batch(tree, plain)] if plain else []), *batches]


def _chosen(run: AnyStage, one: Copy, tree: Tree, choice: Choice) -> list[Placed]:
    found = choose(tree, choice)
    if not found and not choice.excludes and all(map(has_wildcard, choice.sources)):
        file, line, keyword = run.build.dockerfile.file, one.line.first, one.line.keyword
        run.build.warn(f"{file}:{line}: {keyword} copies nothing: {tree.name} has no {' or '.join(choice.sources)}")
    return found


def _literal(source: str) -> str:
    """The part of a path that has no wildcard: what is below it is looked at."""
    parts = os.path.normpath(f"/{source.replace('/./', '/')}").strip("/").split("/")
    kept = []
    for part in parts:
        if has_wildcard(part):
            break
        kept.append(part)
    return "/".join(kept)


def _is_source(entry: Entry, choice: Choice) -> bool:
    """Archives are unpacked when they are named, not when they lie in a directory that is."""
    if entry.kind != "f":
        return False
    for source in choice.sources:
        name = os.path.normpath(f"/{source}").lstrip("/")
        if entry.path == name or (has_wildcard(name) and matches(name, entry.path)):
            return True
    return False


def _is_archive(tree: Tree, entry: Entry) -> bool:
    with Path(tree.source["tar"]).open("rb") as file:
        start = os.pread(file.fileno(), min(entry.size, 512), entry.offset)
    return bool(compression_of(start)) or start[_TAR_MAGIC] == b"ustar"


def _extract(tree: Tree, entry: Entry, place: Path) -> Path:
    path = place / f"archive-{entry.offset}"
    with Path(tree.source["tar"]).open("rb") as file, path.open("wb") as out:
        at, left = entry.offset, entry.size
        while left:
            data = os.pread(file.fileno(), min(left, 1 << 20), at)
            if not data:
                raise Invalid(f"{entry.path} in the build context is cut off")
            out.write(data)
            at, left = at + len(data), left - len(data)
    return path


async def _unpacked(run: AnyStage, archive: Path, choice: Choice, place: Path) -> Batch:
    into = place / f"{archive.name}.d"
    into.mkdir()
    await run.build.images.workers.unpack(archive, into, None)
    tree = await run.build.workshop.tree([into], [""], "the archive")
    whole = Choice(("",), choice.destination, choice.mode, excludes=choice.excludes, owned=True)
    return Batch(tree, choose(tree, whole))


async def _remote(run: AnyStage, one: Copy, source: str, choice: Choice, place: Path) -> Batch:
    checksum = run.word(one.checksum)
    if remotes.is_git(source):
        at = place / f"git-{len(list(place.iterdir()))}"
        directory = await remotes.clone(source, at, one.keep_git_dir, checksum)
        tree = await run.build.workshop.tree([directory], [""], source)
        return Batch(tree, choose(tree, choice._replace(sources=("",))))
    found = await remotes.download(source, place, checksum)
    if one.unpack:
        return await _unpacked(run, found.path, choice, place)
    holder = place / f"{found.path.name}.d"
    holder.mkdir()
    found.path.rename(holder / found.name)
    (holder / found.name).chmod(_REMOTE_MODE)
    os.utime(holder / found.name, (found.modified, found.modified))
    tree = await run.build.workshop.tree([holder], [found.name], source)
    return Batch(tree, choose(tree, choice._replace(sources=(found.name,))))


async def _written(run: AnyStage, one: Copy, choice: Choice, place: Path) -> Batch:
    """Texts that stand in the Dockerfile, as files of their delimiters' names."""
    holder = place / "written"
    holder.mkdir()
    for heredoc in one.contents:
        content = heredoc.content
        if heredoc.expands:
            content = expand(content, run.values(), run.build.dockerfile.escape, quotes=False)
        (holder / heredoc.name).write_text(content)
        (holder / heredoc.name).chmod(0o644)
    names = tuple(heredoc.name for heredoc in one.contents)
    tree = await run.build.workshop.tree([holder], names, "the Dockerfile")
    return Batch(tree, choose(tree, choice._replace(sources=names)))
