"""What a node answers to managers who ask for the logs of its tasks."""

from collections.abc import AsyncIterator
from typing import Any, cast

from swarmd.agent.executor import Executor, Images
from swarmd.agent.log_service import LogService
from swarmd.agent.task_config import SERVICE_ID, TASK_ID
from swarmd.proto import control_pb2 as pb
from swarmd.proto.clock import SystemClock, nanoseconds
from swarmd.runtime.engine import Engine
from swarmd.runtime.errors import NotFound
from swarmd.runtime.model import ContainerConfig, ContainerState, LogEntry, Phase

NOW = 1_700_000_000_000_000_000


class Logs:
    """An engine with one container each of some tasks; those of `broken` lose their log while it is read."""

    def __init__(self, *task_ids: str, broken: str = "") -> None:
        self._task_ids = task_ids
        self._broken = broken

    def list(self) -> list[ContainerState]:
        return [_container(task_id) for task_id in self._task_ids]

    async def logs(self, id: str, **_: Any) -> AsyncIterator[LogEntry]:
        yield LogEntry(at=NOW, stream="stdout", data=f"{id} speaks\n".encode(), attributes={"tier": "web"})
        if id == self._broken:
            raise NotFound(f"no container {id}")


def _container(task_id: str) -> ContainerState:
    config = ContainerConfig(image="i", labels={TASK_ID: task_id, SERVICE_ID: "s1"})
    return ContainerState(id=task_id, name=task_id, config=config, image_id="i", phase=Phase.RUNNING, created=1)


async def answers(engine: Logs, *task_ids: str) -> list[pb.LogEntry]:
    service = LogService(Executor(cast("Engine", engine), "host1", cast("Images", None)), "n1", SystemClock())
    request = pb.LogsRequest(task_ids=task_ids, stdout=True, stderr=True)
    return [entry async for batch in service.batches(request) for entry in batch.entries]


async def test_lines_say_whose_they_are() -> None:
    (line,) = await answers(Logs("t1", "t2"), "t1")
    assert (line.service_id, line.task_id, line.node_id, line.data) == ("s1", "t1", "n1", b"t1 speaks\n")
    assert nanoseconds(line.timestamp) == NOW
    assert dict(line.attributes) == {"tier": "web"}


async def test_a_container_that_is_gone_is_a_notice_of_task_and_node_among_the_lines_of_others() -> None:
    entries = {entry.stream: entry for entry in await answers(Logs("t1"), "gone", "t1")}
    assert entries[pb.LOG_STREAM_STDOUT].data == b"t1 speaks\n"
    notice = entries[pb.LOG_STREAM_NOTICE]
    assert notice.data == b"the log of task gone is gone: its container is not on node host1 any more\n"
    assert (notice.task_id, notice.node_id) == ("", "n1"), "no program's line"
    assert nanoseconds(notice.timestamp) > NOW


async def test_a_log_that_goes_while_it_is_read_is_a_notice_too() -> None:
    line, notice = await answers(Logs("t1", broken="t1"), "t1")
    assert line.stream == pb.LOG_STREAM_STDOUT
    assert (notice.stream, notice.data) == (pb.LOG_STREAM_NOTICE, b"the log of task t1 ends here: no container t1\n")
