"""Archives that the daemon sends: to standard output, or into a file that is there only once it is whole."""

from __future__ import annotations

import os
import sys

from swarmd.swarmctl.client import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from swarmd.swarmctl.http import Response

_PIECE = 1 << 20


def refuse_terminal(path: str, flag: str) -> None:
    """Before anything is asked for, which may be a long wait."""
    if not path and sys.stdout.isatty():
        raise Refusal(f"an archive is nothing for a terminal: name a file with {flag}, or redirect")


def save(response: Response, path: str) -> None:
    """path: '' for standard output. Closes the response; Refusal for a disk, and an archive that is cut off."""
    with response:
        if not path:
            _copy(response, sys.stdout.buffer)
            return
        making = f"{path}.{os.getpid()}"
        try:
            try:
                with open(making, "wb") as file:
                    _copy(response, file)
                os.replace(making, path)
            except BaseException:
                if os.path.exists(making):
                    os.unlink(making)
                raise
        except OSError as problem:
            if problem.filename is None:
                raise Refusal(f"the archive was cut off: {problem}") from None
            raise Refusal(f"{path}: {(problem.strerror or str(problem)).lower()}") from None


def _copy(response: Response, out: IO[bytes]) -> None:
    while data := response.read1(_PIECE):
        out.write(data)
    out.flush()
