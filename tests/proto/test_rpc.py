"""What gRPC says of a side that is gone, in our words."""

import pytest
from grpc import StatusCode, aio

from swarmd.manager.store.etcd_client import UnknownOutcome, explained
from swarmd.proto.errors import Internal, Unavailable
from swarmd.proto.rpc import MARK, mapped


def error(code: StatusCode, details: str) -> aio.AioRpcError:
    return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), details=details)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (StatusCode.UNAVAILABLE, "Socket closed"),
        (StatusCode.CANCELLED, ""),
        (StatusCode.UNKNOWN, "No status received"),
        (StatusCode.INTERNAL, "Internal error from Core"),
        (StatusCode.UNKNOWN, "Stream removed (recvmsg:Connection reset by peer (104))"),
    ],
)
def test_one_that_dies_while_it_answers_did_not_answer(code: StatusCode, details: str) -> None:
    assert isinstance(mapped(error(code, details), "node n1"), Unavailable)
    assert isinstance(explained(error(code, details), "range"), UnknownOutcome)


def test_what_a_manager_says_itself_is_an_answer() -> None:
    told = aio.AioRpcError(StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata((MARK, "1")), details="no quorum")
    assert str(mapped(told, "node n1")) == "no quorum"


def test_a_defect_of_the_other_side_is_one() -> None:
    assert isinstance(mapped(error(StatusCode.UNKNOWN, "Unexpected <class 'KeyError'>"), "node n1"), Internal)
