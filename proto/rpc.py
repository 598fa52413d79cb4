"""gRPC's errors as ours, on the calling side."""

import logging
from collections.abc import Iterable
from typing import cast

import grpc

from swarmd.proto.errors import BY_GRPC_CODE, Internal, SwarmdError, Unavailable

_LOG = logging.getLogger(__name__)
MARK = "swarmd-error"  # trailing metadata: the details are our own sentence, not one of gRPC's


def unanswered(error: grpc.aio.AioRpcError) -> bool:
    """Whether the other side was not reached, or died, or its host or link did, in the middle of the call.

    What breaks off in the middle is of an unknown status to gRPC, or an internal error.
    """
    if any(key == MARK for key, _ in _pairs(error)):
        return False
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return True
    broken = (error.details() or "").startswith(("No status received", "Stream removed", "Internal error from Core"))
    return broken and error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


def mapped(error: grpc.aio.AioRpcError, whom: str) -> SwarmdError:
    """The error that the other side raised; Unavailable, naming `whom`, when it was not reached at all."""
    kind = BY_GRPC_CODE.get(error.code().name, Internal)
    details = error.details() or error.code().name.lower()
    if any(key == MARK for key, _ in _pairs(error)):
        return kind(details)
    if unanswered(error):
        _LOG.info("%s does not answer: %s", whom, details)
        return Unavailable(f"{whom} does not answer: try again in a moment")
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"{whom} did not answer in time: try again in a moment")
    return kind(f"{whom}: {details}")


def _pairs(error: grpc.aio.AioRpcError) -> Iterable[tuple[str, str | bytes]]:
    return cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
