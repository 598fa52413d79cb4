"""A directory as a build context: a tar that is made while it is sent, in the order of names, without what is ignored.

The Dockerfile travels beside it, so it may be ignored, and lie elsewhere.  Owners and sub-seconds stay here: for the
build all belongs to root, and its cache looks at contents alone.
"""

from __future__ import annotations

import os
import stat
import sys

from swarmd.swarmctl.client import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PIECE = 256 * 1024
_BLOCK = 512
_ZEROES = bytes(_BLOCK)
_SHORT = 100  # bytes of a name in the first form of tar
_ROOT = b"0000000\0" * 2  # whose all files are
_END = b"ustar\00000" + bytes(247)
_SUM = sum(_END) + 8 * 0x20  # a header's sum counts itself as blanks
_LARGE = 1 << 33  # bytes; sizes from here do not fit into a header's eleven octal digits
_REASONS = {"No such file or directory": "is gone", "Permission denied": "may not be read"}


class Context:
    """ignore: the name and the text of a .dockerignore; Refusal if it has a pattern that is none.

    prefix: what all names begin with.  skipped: sentences about what could not come along.
    """

    def __init__(self, root: str, ignore: tuple[str, str] = ("", ""), prefix: str = "") -> None:
        self._root = root
        self._prefix = os.fsencode(prefix)
        file, text = ignore
        self._left_out, self._descends = _patterns(file, text) if text.strip() else (_nothing, False)
        self.skipped: list[str] = []

    def tar(self, beside: Sequence[Context] = ()) -> Iterator[bytes]:
        """Pieces of the archive, with others beside it. Refusal for a file that can't be read, or changes meanwhile."""
        held: list[bytes] = []
        size = 0
        for one in (self, *beside):
            one.skipped = self.skipped
            for part in one._members():
                held.append(part)
                size += len(part)
                if size >= _PIECE:
                    yield b"".join(held)
                    held.clear()
                    size = 0
        held.append(bytes(2 * _BLOCK))
        yield b"".join(held)

    def _members(self) -> Iterator[bytes]:
        # Directories that are left out, and wait for something in them that is not.
        waiting: list[tuple[str, os.stat_result]] = []
        for path, entry in self._walk(""):
            while waiting and not path.startswith(f"{waiting[-1][0]}/"):
                waiting.pop()
            try:
                if self._left_out(path):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((path, entry.stat(follow_symlinks=False)))
                    continue
                for above, about in waiting:
                    yield header(self._prefix + os.fsencode(above) + b"/", about, b"5")
                waiting.clear()
                if entry.is_file(follow_symlinks=False):
                    yield from self._file(path, entry)
                else:
                    yield from self._other(path, entry)
            except FileNotFoundError:
                self.skipped.append(f"{path} is gone since the context was listed: it is left out")

    def _walk(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """What is below a folder of the context, parents first, but for what no pattern needs looked at."""
        try:
            with os.scandir(os.path.join(self._root, folder)) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        except OSError as problem:
            raise _refusal(folder or self._root, problem) from None
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            yield path, entry
            if entry.is_dir(follow_symlinks=False) and (self._descends or not self._left_out(path)):
                yield from self._walk(path)

    def _other(self, path: str, entry: os.DirEntry[str]) -> Iterator[bytes]:
        found = entry.stat(follow_symlinks=False)
        name, kind = self._prefix + os.fsencode(path), stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFDIR:
            yield header(name + b"/", found, b"5")
        elif kind == stat.S_IFLNK:
            yield header(name, found, b"2", link=os.fsencode(os.readlink(entry.path)))
        elif kind == stat.S_IFIFO:
            yield header(name, found, b"6")
        else:
            what = "a socket" if kind == stat.S_IFSOCK else "a device"
            self.skipped.append(f"{path} is {what}, which no archive carries to a build: it is left out")

    def _file(self, path: str, entry: os.DirEntry[str]) -> Iterator[bytes]:
        try:
            # Not blocking, nor through a link: it may have been replaced by something else.
            fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as problem:
            raise _refusal(path, problem) from None
        try:
            found = os.fstat(fd)
            left = size = found.st_size
            yield header(self._prefix + os.fsencode(path), found, b"0", size)
            while left:
                data = os.read(fd, left if left < _PIECE else _PIECE)
                if not data:
                    raise Refusal(f"{path} became shorter while it was sent: build when nothing writes to it")
                left -= len(data)
                yield data
            yield _ZEROES[: -size % _BLOCK]
        except OSError as problem:
            raise _refusal(path, problem) from None
        finally:
            os.close(fd)


def _nothing(path: str) -> str:
    return ""


def _patterns(file: str, text: str) -> tuple[Callable[[str], str], bool]:
    """What says which pattern leaves a path out, and whether some take back what others leave out."""
    from swarmd.runtime.build.patterns import BadPattern, ignoring, takes_back  # which take regular expressions

    try:
        return ignoring(text), takes_back(text)
    except BadPattern as problem:
        raise Refusal(f"{file}: {problem}") from None


def _refusal(path: str, problem: OSError) -> Refusal:
    why = problem.strerror or str(problem)
    return Refusal(f"{path} of the build context {_REASONS.get(why, f'is not readable: {why.lower()}')}: "
                   "mend it, or leave it out with .dockerignore")  # fmt: skip


def header(name: bytes, found: os.stat_result, kind: bytes, size: int = 0, link: bytes = b"") -> bytes:
    """Of POSIX tar; what is too long for it goes before it, as pax has it."""
    before = b""
    if len(name) > _SHORT or len(link) > _SHORT or size >= _LARGE:
        # BINARY: names are what the file system has, in whatever encoding.
        records = [(b"hdrcharset", b"BINARY"), (b"path", name), (b"linkpath", link)]
        records += [(b"size", b"%d" % size)] if size >= _LARGE else []
        more = b"".join(_record(key, value) for key, value in records if value)
        before = _ustar(b"pax", 0o644, len(more), 0, b"x", b"") + more + bytes(-len(more) % _BLOCK)
    mode, mtime = stat.S_IMODE(found.st_mode), min(max(0, int(found.st_mtime)), _LARGE - 1)
    return before + _ustar(name[:_SHORT], mode, size % _LARGE, mtime, kind, link[:_SHORT])


def _record(key: bytes, value: bytes) -> bytes:
    """Begins with its own length."""
    length = len(key) + len(value) + 3
    digits = len(str(length))
    total = length + len(str(length + digits))
    return b"%d %b=%b\n" % (total, key, value)


def _ustar(name: bytes, mode: int, size: int, mtime: int, kind: bytes, link: bytes) -> bytes:
    numbers = b"%07o\0%b%011o\0%011o\0" % (mode, _ROOT, size, mtime)
    total = sum(name) + sum(numbers) + sum(kind) + sum(link) + _SUM
    return b"%b%b%06o\0 %b%b%b" % (name.ljust(_SHORT, b"\0"), numbers, total, kind, link.ljust(_SHORT, b"\0"), _END)


# ---------------------------------------------------------------- what lies beside


def ignored(root: str, dockerfile: str) -> tuple[str, str]:
    """Name and text of the file beside a Dockerfile which is named after it, or else of the context's own."""
    for path in (f"{dockerfile}.dockerignore" if dockerfile else "", os.path.join(root, ".dockerignore")):
        if path and os.path.isfile(path):
            return os.path.basename(path), text_of(path)
    return "", ""


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as problem:
        raise Refusal(f"{path}: {(problem.strerror or str(problem)).lower()}") from None
    except UnicodeDecodeError:
        raise Refusal(f"{path} is not text in UTF-8") from None


def warn(skipped: list[str]) -> None:
    for sentence in skipped:
        print(f"WARNING: {sentence}", file=sys.stderr)
