"""What ADD and a build's context bring from elsewhere: a file of a URL, or a commit of a git repository."""

import asyncio
import hashlib
import os
import re
import shutil
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from swarmd.runtime.build.faults import WrongWord
from swarmd.runtime.errors import Invalid, RuntimeFault, Unsupported
from swarmd.runtime.images.store import in_thread
from swarmd.runtime.model import Struct
from swarmd.runtime.urls import why

_LARGEST = 16 << 30
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30, sock_read=60)
_GIT_TIMEOUT = 600.0
_CHECKSUMS = ("sha256", "sha384", "sha512")
_COMMIT = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE | re.ASCII)
_GIT_FORMS = re.compile(
    r"(git@[^:/]+:.+|git://.+|ssh://.+|https?://[^#]+\.git(#.*)?|https?://github\.com/[^/]+/[^/#]+(#.*)?)"
)
# Nothing of the daemon's own account or of a repository's hooks takes part.
_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "protocol.file.allow=never")


class Downloaded(Struct, frozen=True):
    """name: of the file as the URL has it; modified: s since the epoch, 0 if the server does not say."""

    path: Path
    name: str
    modified: float


def is_remote(source: str) -> bool:
    return source.startswith(("http://", "https://")) or is_git(source)


def is_git(source: str) -> bool:
    return _GIT_FORMS.fullmatch(source) is not None


async def download(url: str, place: Path, checksum: str = "") -> Downloaded:
    """Bring a file of a URL. checksum: sha256:..., or 384 or 512, which it must have.

    Raises a RuntimeFault naming the URL.
    """
    algorithm = checksum.partition(":")[0] or "sha256"
    if algorithm not in _CHECKSUMS:
        raise WrongWord(f"--checksum={checksum} does not begin with {', '.join(_CHECKSUMS)} and a colon", checksum)
    name = Path(unquote(urlsplit(url).path)).name or "download"
    path, content, size, modified = place / f"download-{len(list(place.iterdir()))}", hashlib.new(algorithm), 0, 0.0
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True) as session, session.get(url) as response:
            if response.status != 200:
                raise RuntimeFault(
                    f"{url} could not be fetched: the server answered {response.status} {response.reason}"
                )
            if when := response.headers.get("Last-Modified"):
                modified = parsedate_to_datetime(when).timestamp()
            with path.open("wb") as file:
                async for chunk in response.content.iter_chunked(1 << 18):
                    size += len(chunk)
                    if size > _LARGEST:
                        raise Invalid(f"{url} is larger than {_LARGEST >> 30} GiB")
                    content.update(chunk)
                    await in_thread(partial(file.write, chunk))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RuntimeFault(f"{url} could not be fetched: {why(error)}") from None
    digest = f"{algorithm}:{content.hexdigest()}"
    if checksum and checksum.lower() != digest:
        raise WrongWord(f"{url} is {digest}, and not {checksum} as --checksum says", checksum)
    return Downloaded(path=path, name=name, modified=modified)


async def clone(source: str, place: Path, keep_git: bool = False, checksum: str = "") -> Path:
    """Bring a repository, URL[#ref[:subdirectory]], and return the directory that is meant.

    checksum: the commit that it must be, or the first 7 or more of its digits.
    Raises Unsupported where there is no git, a RuntimeFault with what git says.
    """
    if shutil.which("git") is None:
        raise Unsupported(f"{source} can't be fetched: this node has no git program; install git")
    url, _, fragment = source.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    if ref.startswith("-"):
        raise Invalid(f"{source}: {ref!r} is no branch, tag or commit")
    if checksum and not _COMMIT.fullmatch(checksum):
        raise WrongWord(f"--checksum={checksum} is no commit: of a repository, give 7 or more of its digits", checksum)
    directory = place / "git"
    await _git(source, "init", "-q", str(directory))
    wanted = ref or "HEAD"
    await _git(source, "-C", str(directory), "fetch", "-q", "--depth", "1", "--", url, wanted)
    await _git(source, "-C", str(directory), "-c", "advice.detachedHead=false", "checkout", "-q", "FETCH_HEAD")
    await _git(source, "-C", str(directory), "submodule", "update", "-q", "--init", "--recursive", "--depth", "1")
    commit = await _git(source, "-C", str(directory), "rev-parse", "HEAD")
    if not commit.startswith(checksum.lower()):
        raise WrongWord(f"{source} is commit {commit}, and not {checksum} as --checksum says", checksum)
    if not keep_git:
        await in_thread(lambda: shutil.rmtree(directory / ".git"))
    found = Path(os.path.normpath(directory / subdirectory.lstrip("/")))
    if (
        not found.is_relative_to(directory)
        or not found.resolve().is_relative_to(directory.resolve())
        or not found.is_dir()
    ):
        raise Invalid(f"{source}: the repository has no directory {subdirectory!r}")
    return found


async def _git(source: str, *words: str) -> str:
    """What git prints."""
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_LFS_SKIP_SMUDGE": "1"}
    process = await asyncio.create_subprocess_exec(
        *_GIT,
        *words,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, said = await asyncio.wait_for(process.communicate(), _GIT_TIMEOUT)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeFault(f"{source} could not be fetched: git: {last or f'exit code {process.returncode}'}")
    return printed.decode(errors="replace").strip()
