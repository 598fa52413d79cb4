from swarmd.manager.orchestrator.enforcer import plan
from swarmd.proto import task_states as states
from swarmd.proto.clock import timestamp
from swarmd.proto.objects_pb2 import (
    NODE_AVAILABILITY_DRAIN,
    NODE_AVAILABILITY_PAUSE,
    NODE_STATE_DISCONNECTED,
    NODE_STATE_DOWN,
    NODE_STATE_UNKNOWN,
    Resources,
    Task,
)
from tests.manager.orchestrator.world import node

GIB = 1 << 30


def task(id: str, *constraints: str, memory: int = 0, age: int = 0) -> Task:
    made = Task(id=id, desired_state=states.RUNNING, node_id="a", created_at=timestamp(100 - age))
    made.status.state = states.RUNNING
    made.spec.placement.constraints.extend(constraints)
    made.spec.resources.reservations.memory_bytes = memory
    return made


def names(tasks: list[Task]) -> list[str]:
    return [task.id for task in tasks]


def test_a_good_node_keeps_its_tasks():
    assert plan(node("a"), [task("one"), task("two", "node.hostname==a")]) == []


def test_a_node_that_is_down_drained_or_gone_loses_all():
    drained = node("a")
    drained.spec.availability = NODE_AVAILABILITY_DRAIN
    for bad in (None, node("a", state=NODE_STATE_DOWN), drained):
        assert names(plan(bad, [task("one"), task("two")])) == ["one", "two"]


def test_a_paused_or_unheard_node_keeps_its_tasks():
    paused = node("a")
    paused.spec.availability = NODE_AVAILABILITY_PAUSE
    unheard = node("a", state=NODE_STATE_UNKNOWN)
    disconnected = node("a", state=NODE_STATE_DISCONNECTED)
    for good in (paused, unheard, disconnected):
        assert plan(good, [task("one")]) == []


def test_a_changed_label_drives_tasks_off():
    labelled = node("a")
    labelled.spec.labels["zone"] = "eu"
    tasks = [task("eu", "node.labels.zone==eu"), task("us", "node.labels.zone==us"), task("any")]
    assert names(plan(labelled, tasks)) == ["us"]


def test_resources_that_shrank_cost_the_youngest():
    small = node("a", resources=Resources(memory_bytes=3 * GIB))
    tasks = [task("new", memory=2 * GIB, age=1), task("old", memory=2 * GIB, age=9), task("free")]
    assert names(plan(small, tasks)) == ["new"]


def test_what_ended_or_leaves_already_is_left_alone():
    ended = task("ended")
    ended.status.state = states.FAILED
    leaving = task("leaving")
    leaving.desired_state = states.SHUTDOWN
    assert plan(None, [ended, leaving]) == []
