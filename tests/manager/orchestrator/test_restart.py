import pytest

from swarmd.proto import task_states as states
from swarmd.proto.objects_pb2 import (
    RESTART_CONDITION_ANY,
    RESTART_CONDITION_NONE,
    RESTART_CONDITION_ON_FAILURE,
    RestartPolicy,
    Task,
)
from tests.manager.orchestrator.world import SECOND, World, node, service


def cluster(policy: RestartPolicy | None = None, replicas: int = 1) -> World:
    world = World()
    for name in ("a", "b"):
        world.put(node(name))
    wanted = service(replicas)
    if policy is not None:
        wanted.spec.task.restart.CopyFrom(policy)
    world.put(wanted)
    world.converge()
    return world


def end(world: World, state: int = states.FAILED, *, unhealthy: bool = False) -> Task:
    """End the one running task; return it as it was."""
    task = world.running()[0]
    world.report(task, state, unhealthy=unhealthy)  # type: ignore[arg-type]
    world.settle()
    return task


def wait_seconds(world: World) -> float:
    """How long the prepared replacement still has to wait."""
    due = world.due()
    return 0.0 if due is None else (due - world.now()) / SECOND


def test_a_failed_task_is_prepared_at_once_and_started_after_the_default_delay():
    world = cluster()
    old = end(world)
    (new,) = world.live()
    assert (new.slot, new.desired_state) == (old.slot, states.READY)
    assert wait_seconds(world) == pytest.approx(5, abs=0.001)
    world.place()
    world.obey()
    assert world.live()[0].status.state == states.READY
    world.tick(5)
    world.converge()
    assert world.running()[0].id == new.id
    assert world.get(Task, old.id).desired_state == states.SHUTDOWN


def test_no_delay_means_at_once_however_often():
    world = cluster(RestartPolicy(delay=0))
    for _ in range(20):
        end(world)
        assert world.live()[0].desired_state == states.RUNNING
        world.converge()


def test_a_slot_that_keeps_failing_waits_longer_up_to_a_minute():
    world = cluster()
    waits = []
    for _ in range(6):
        end(world)
        waits.append(round(wait_seconds(world)))
        world.tick(waits[-1])
        world.converge()
    assert waits == [5, 10, 20, 40, 60, 60]
    world.tick(600)
    end(world)
    assert round(wait_seconds(world)) == 5


def test_a_longer_configured_delay_is_never_cut():
    world = cluster(RestartPolicy(delay=90 * SECOND))
    for _ in range(2):
        end(world)
        assert round(wait_seconds(world)) == 90
        world.tick(90)
        world.converge()


def test_a_rejected_task_is_not_retried_in_a_tight_loop():
    world = cluster(RestartPolicy(delay=0))
    end(world, states.REJECTED)
    assert world.live()[0].desired_state == states.RUNNING
    world.converge()
    end(world, states.REJECTED)
    assert wait_seconds(world) >= 1.9


def test_clean_exits_are_not_backed_off():
    world = cluster(RestartPolicy(delay=SECOND))
    for _ in range(3):
        end(world, states.COMPLETE)
        assert round(wait_seconds(world)) == 1
        world.tick(1)
        world.converge()


@pytest.mark.parametrize(
    ("condition", "state", "replaced"),
    [
        (RESTART_CONDITION_ANY, states.COMPLETE, True),
        (RESTART_CONDITION_ANY, states.FAILED, True),
        (RESTART_CONDITION_ANY, states.SHUTDOWN, True),
        (RESTART_CONDITION_ON_FAILURE, states.COMPLETE, False),
        (RESTART_CONDITION_ON_FAILURE, states.FAILED, True),
        (RESTART_CONDITION_ON_FAILURE, states.REJECTED, True),
        (RESTART_CONDITION_NONE, states.COMPLETE, False),
        (RESTART_CONDITION_NONE, states.FAILED, False),
    ],
)
def test_condition(condition, state, replaced):
    world = cluster(RestartPolicy(condition=condition))
    old = end(world, state)
    assert bool(world.live()) == replaced
    assert world.get(Task, old.id).desired_state == states.SHUTDOWN
    if not replaced:
        assert "not restarted: " in world.get(Task, old.id).status.message


def test_attempts_are_counted_and_the_last_task_says_why_it_was_left():
    world = cluster(RestartPolicy(delay=0, max_attempts=2))
    for _ in range(3):
        last = end(world)
        world.converge()
    assert world.live() == []
    assert world.get(Task, last.id).status.message == "not restarted: all 2 restart attempts were used"
    world.tick(3600)
    world.converge()
    assert world.live() == []


def test_attempts_outside_the_window_do_not_count():
    world = cluster(RestartPolicy(delay=0, max_attempts=2, window=10 * SECOND))
    for _ in range(5):
        end(world)
        world.converge()
        world.tick(6)
    assert len(world.running()) == 1
    end(world)
    world.converge()
    end(world)
    world.converge()
    assert world.live() == []
    assert world.tasks()[-1].status.message.endswith("within 10s")


def test_slots_count_for_themselves():
    world = cluster(RestartPolicy(delay=0, max_attempts=1), replicas=2)
    for _ in range(2):
        world.report(next(task for task in world.running() if task.slot == 1), states.FAILED)
        world.converge()
    assert [task.slot for task in world.running()] == [2]
    world.report(world.running()[0], states.FAILED)
    world.converge()
    assert [task.slot for task in world.running()] == [2]


def test_a_slot_left_by_the_policy_is_filled_again_by_a_new_spec():
    world = cluster(RestartPolicy(condition=RESTART_CONDITION_NONE))
    end(world)
    world.converge()
    assert world.live() == []
    forced = world.service()
    forced.spec.task.force_update += 1
    forced.spec_version += 1
    world.put(forced)
    world.converge()
    assert len(world.running()) == 1


def test_history_names_the_node_that_failed_it():
    world = cluster(RestartPolicy(delay=0))
    sick = end(world, unhealthy=True)
    world.converge()
    clean = end(world, states.COMPLETE)
    events = world.service().restarts.events
    assert [(event.slot, event.node_id, event.failed) for event in events] == [
        (1, sick.node_id, True),
        (1, clean.node_id, False),
    ]


def test_history_is_bounded():
    world = cluster(RestartPolicy(delay=0))
    for _ in range(30):
        end(world)
        world.converge()
    assert len(world.service().restarts.events) == 8


def test_a_task_that_ended_while_its_node_drained_is_replaced_whatever_the_policy():
    world = cluster(RestartPolicy(condition=RESTART_CONDITION_NONE))
    task = world.running()[0]
    drained = world.edit_node(task.node_id)
    drained.spec.availability = 2
    world.put(drained)
    world.settle()
    world.report(task, states.COMPLETE)  # it took the stop signal well
    world.converge()
    assert len(world.running()) == 1
