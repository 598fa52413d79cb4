"""Changes that meet another's: read again and repeated, a few times."""

import pytest

from swarmd.proto.control_pb2 import UpdateRequest, WriteResponse
from swarmd.proto.errors import Conflict
from tests.agent.api.conftest import Api
from tests.swarmctl.conftest import Run


@pytest.mark.parametrize(("others", "code"), [(2, 0), (1000, 1)])
async def test_an_update_of_the_swarm_is_repeated_on_a_conflict(
    api: Api, swarmctl: Run, monkeypatch: pytest.MonkeyPatch, others: int, code: int
) -> None:
    await swarmctl("swarm", "init")
    control = api.membership.cluster
    updated, refused = control.Update, [Conflict("update out of sequence: read it again")] * others

    async def update(request: UpdateRequest) -> WriteResponse:
        if refused:
            raise refused.pop()
        return await updated(request)

    monkeypatch.setattr(control, "Update", update)
    done = await swarmctl("swarm", "update", "--task-history-limit", "3")
    assert done.code == code
    assert ("out of sequence" in done.err) is bool(code)
