from swarmd.agent.reporter import BATCH, Reporter
from swarmd.proto.objects_pb2 import TaskStatus
from swarmd.proto.task_states import READY, RUNNING


async def test_newest_status_of_a_task_wins() -> None:
    reporter = Reporter()
    reporter.report("a", TaskStatus(state=READY))
    reporter.report("a", TaskStatus(state=RUNNING))
    assert [update.status.state for update in (await reporter.next()).updates] == [RUNNING]


async def test_batches_are_bounded() -> None:
    reporter = Reporter()
    for n in range(BATCH + 1):
        reporter.report(str(n), TaskStatus(state=READY))
    assert [len((await reporter.next()).updates) for _ in range(2)] == [BATCH, 1]


async def test_unacknowledged_goes_again_and_acknowledged_does_not() -> None:
    reporter = Reporter()
    reporter.report("a", TaskStatus(state=READY))
    reporter.acknowledge((await reporter.next()).batch)
    reporter.report("b", TaskStatus(state=READY))
    await reporter.next()
    reporter.report("b", TaskStatus(state=RUNNING))
    await reporter.next()
    reporter.resend()
    again = await reporter.next()
    assert [(update.task_id, update.status.state) for update in again.updates] == [("b", RUNNING)]
