import pytest

from swarmd.manager.orchestrator import update
from swarmd.proto import task_states as states
from swarmd.proto.objects_pb2 import (
    FAILURE_ACTION_CONTINUE,
    FAILURE_ACTION_ROLLBACK,
    NODE_AVAILABILITY_DRAIN,
    RESTART_CONDITION_NONE,
    UPDATE_ORDER_START_FIRST,
    UPDATE_STATE_COMPLETED,
    UPDATE_STATE_PAUSED,
    UPDATE_STATE_ROLLBACK_COMPLETED,
    UPDATE_STATE_ROLLBACK_PAUSED,
    UPDATE_STATE_ROLLBACK_STARTED,
    UPDATE_STATE_UPDATING,
    PortConfig,
    Service,
    Task,
    TaskStatus,
    UpdateConfig,
)
from tests.manager.orchestrator.world import SECOND, World, node, service

QUICK = UpdateConfig(monitor=0)


def cluster(replicas: int = 4, config: UpdateConfig = QUICK) -> World:
    world = World()
    for name in ("a", "b", "c"):
        world.put(node(name))
    wanted = service(replicas)
    wanted.spec.update.CopyFrom(config)
    wanted.spec.rollback.CopyFrom(QUICK)
    wanted.spec.task.restart.delay = 0
    world.put(wanted)
    world.converge()
    return world


def change(world: World, image: str = "app:2") -> None:
    spec = world.service().spec
    spec.task.container.image = image
    world.put(update.revise(world.service(), spec))


def test_another_login_restarts_no_task_and_is_what_new_ones_get() -> None:
    world = cluster(2)
    before = {task.id for task in world.running()}
    spec = world.service().spec
    spec.task.container.registry_auth = "a login"
    spec.mode.replicated.replicas = 3
    world.put(update.revise(world.service(), spec))
    world.converge()
    assert before < {task.id for task in world.running()}
    assert sorted(task.spec.container.registry_auth for task in world.running()) == ["", "", "a login"]


@pytest.mark.parametrize(("state", "current"), [(states.PREPARING, False), (states.RUNNING, True)])
def test_a_task_that_still_needs_its_image_needs_the_new_login(state: int, current: bool) -> None:
    wanted = service()
    task = Task(service_id=wanted.id, spec=wanted.spec.task, status=TaskStatus(state=state))
    wanted.spec_version += 1
    wanted.spec.task.container.registry_auth = "a login"
    assert update.is_current(task, wanted) is current


def images(world: World) -> list[str]:
    return [task.spec.container.image for task in world.running()]


def state(world: World) -> int:
    return world.service().update_status.state


def step(world: World) -> None:
    """Let the new tasks that may start do so, and no more."""
    world.settle()
    world.place()
    world.obey()
    world.settle()
    world.place()
    world.obey()


def started(world: World) -> list[Task]:
    return [task for task in world.live() if task.spec.container.image == "app:2"]


def fail_new(world: World) -> None:
    """Every task of the new image fails as it starts; the rest of the cluster obeys."""
    for _ in range(30):
        world.settle()
        world.place()
        for task in started(world):
            if task.node_id and task.desired_state == states.RUNNING:
                world.report(task, states.FAILED)
        old = [
            task
            for task in world.tasks()
            if task.spec.container.image != "app:2" or task.desired_state > states.RUNNING
        ]
        for task in old:
            if task.node_id and task.status.state not in states.ENDED:
                wanted = min(task.desired_state, states.SHUTDOWN)
                if task.status.state < wanted:
                    world.report(task, wanted)
    world.settle()


def test_an_update_changes_every_task_and_says_so():
    world = cluster()
    change(world)
    world.converge()
    assert images(world) == ["app:2"] * 4
    assert state(world) == UPDATE_STATE_COMPLETED
    assert world.service().update_status.message == "update completed"
    assert world.service().update_status.HasField("completed_at")


def test_one_slot_at_a_time_by_default_and_only_once_the_last_one_runs():
    world = cluster()
    change(world)
    world.settle()
    assert [task.slot for task in started(world)] == [1]
    assert state(world) == UPDATE_STATE_UPDATING
    world.place()  # assigned, but not healthy yet
    world.settle()
    assert len(started(world)) == 1
    world.obey()
    world.settle()
    world.obey()
    world.settle()
    assert [task.slot for task in started(world)] == [1, 2]


@pytest.mark.parametrize(("parallelism", "at_once"), [(1, 1), (2, 2), (3, 3), (0, 4), (9, 4)])
def test_parallelism(parallelism, at_once):
    world = cluster(4, UpdateConfig(parallelism=parallelism, monitor=0))
    change(world)
    world.settle()
    assert len(started(world)) == at_once


def test_delay_passes_between_slots():
    world = cluster(2, UpdateConfig(delay=10 * SECOND, monitor=0))
    change(world)
    world.converge()
    assert sorted(images(world)) == ["app:1", "app:2"]
    due = world.due()
    assert due is not None and 9.9 < (due - world.now()) / SECOND <= 10
    world.tick(10)
    world.converge()
    assert images(world) == ["app:2", "app:2"]


def test_it_completes_after_the_monitor_period():
    world = cluster(2, UpdateConfig())
    change(world)
    world.converge()
    assert images(world) == ["app:2", "app:2"]
    assert state(world) == UPDATE_STATE_UPDATING
    world.tick(5)
    world.converge()
    assert state(world) == UPDATE_STATE_COMPLETED


def test_stop_first_starts_the_new_task_after_the_old_one_stopped():
    world = cluster(1)
    change(world)
    world.settle()
    new = started(world)[0]
    assert new.desired_state == states.READY
    assert [task.desired_state for task in world.tasks() if task.id != new.id] == [states.SHUTDOWN]


def test_start_first_stops_the_old_task_once_the_new_one_runs():
    world = cluster(1, UpdateConfig(order=UPDATE_ORDER_START_FIRST, monitor=0))
    change(world)
    world.settle()
    assert {task.desired_state for task in world.live()} == {states.RUNNING}
    assert images(world) == ["app:1"]
    world.converge()
    assert images(world) == ["app:2"]


def test_replicas_labels_and_update_settings_roll_nothing():
    world = cluster(2)
    before = {task.id for task in world.running()}
    spec = world.service().spec
    spec.mode.replicated.replicas = 3
    spec.labels["tier"] = "front"
    spec.update.parallelism = 7
    world.put(update.revise(world.service(), spec))
    world.converge()
    assert before < {task.id for task in world.running()}
    assert world.service().spec_version == 1
    assert state(world) == 0


@pytest.mark.parametrize(
    "edit",
    [
        lambda spec: spec.task.container.env.append("A=1"),
        lambda spec: spec.networks.add(target="net"),
        lambda spec: spec.endpoint.ports.append(PortConfig(target_port=80)),
    ],
)
def test_what_reaches_the_containers_rolls(edit):
    old = service().spec
    new = service().spec
    edit(new)
    assert update.needs_new_tasks(old, new)
    assert update.revise(service(), new).spec_version == 2


def test_force_update_replaces_every_task():
    world = cluster(2)
    before = {task.id for task in world.running()}
    spec = world.service().spec
    spec.task.force_update += 1
    world.put(update.revise(world.service(), spec))
    world.converge()
    assert not before & {task.id for task in world.running()}


def test_failure_pauses_and_leaves_the_rest_alone():
    world = cluster(4)
    change(world)
    fail_new(world)
    assert state(world) == UPDATE_STATE_PAUSED
    assert world.service().update_status.message.startswith(
        "update paused due to failure or early termination of task "
    )
    assert images(world) == ["app:1"] * 3


def test_failure_ratio_is_of_all_slots():
    world = cluster(4, UpdateConfig(max_failure_ratio=0.5, monitor=0))
    change(world)
    fail_new(world)
    assert state(world) == UPDATE_STATE_PAUSED
    assert images(world) == ["app:1"]  # two failures were borne, the third was one too many


def test_continue_goes_on_through_failures():
    world = cluster(3, UpdateConfig(failure_action=FAILURE_ACTION_CONTINUE, monitor=0))
    change(world)
    fail_new(world)
    assert images(world) == []
    assert state(world) == UPDATE_STATE_COMPLETED
    world.converge()
    assert images(world) == ["app:2"] * 3


def test_rollback_restores_the_previous_spec_and_keeps_what_was_never_changed():
    world = cluster(4, UpdateConfig(failure_action=FAILURE_ACTION_ROLLBACK, monitor=0))
    untouched = {task.id for task in world.running() if task.slot > 1}
    change(world)
    world.settle()
    assert started(world)
    fail_new(world)
    world.converge()
    assert images(world) == ["app:1"] * 4
    assert untouched < {task.id for task in world.running()}
    assert state(world) == UPDATE_STATE_ROLLBACK_COMPLETED
    assert world.service().spec.task.container.image == "app:1"


def test_rollback_says_why_it_started():
    world = cluster(1, UpdateConfig(failure_action=FAILURE_ACTION_ROLLBACK, monitor=0))
    change(world)
    for _ in range(20):
        if state(world) == UPDATE_STATE_ROLLBACK_STARTED:
            break
        world.orchestrator.settle("web", world)
        world.place()
        for task in started(world):
            if task.node_id:
                world.report(task, states.FAILED)
        for task in world.tasks():
            if task.desired_state == states.SHUTDOWN and task.status.state == states.RUNNING:
                world.report(task, states.SHUTDOWN)
    assert state(world) == UPDATE_STATE_ROLLBACK_STARTED
    assert "update rolled back due to failure or early termination of task" in world.service().update_status.message
    assert not world.service().HasField("previous_spec")


def test_a_rollback_that_fails_pauses():
    world = cluster(2)
    change(world)
    world.converge()
    world.put(update.rolled_back(world.service(), world.now(), "manually requested rollback"))
    for _ in range(6):
        world.settle()
        world.place()
        for task in world.live():
            if task.spec.container.image == "app:1" and task.node_id and task.desired_state == states.RUNNING:
                world.report(task, states.FAILED)
        for task in world.tasks():
            if task.desired_state == states.SHUTDOWN and task.status.state == states.RUNNING:
                world.report(task, states.SHUTDOWN)
    assert state(world) == UPDATE_STATE_ROLLBACK_PAUSED


def test_a_manual_rollback_can_be_taken_back():
    world = cluster(2)
    change(world)
    world.converge()
    world.put(update.rolled_back(world.service(), world.now(), "manually requested rollback"))
    world.converge()
    assert images(world) == ["app:1", "app:1"]
    assert state(world) == UPDATE_STATE_ROLLBACK_COMPLETED
    world.put(update.rolled_back(world.service(), world.now(), "manually requested rollback"))
    world.converge()
    assert images(world) == ["app:2", "app:2"]


def test_a_new_update_supersedes_one_under_way():
    world = cluster(4)
    change(world)
    step(world)
    change(world, "app:3")
    world.converge()
    assert images(world) == ["app:3"] * 4
    assert state(world) == UPDATE_STATE_COMPLETED


def test_a_new_update_supersedes_a_paused_one():
    world = cluster(3)
    change(world)
    fail_new(world)
    assert state(world) == UPDATE_STATE_PAUSED
    change(world, "app:3")
    world.converge()
    assert images(world) == ["app:3"] * 3
    assert state(world) == UPDATE_STATE_COMPLETED


def test_the_same_spec_again_has_a_paused_update_go_on_and_keeps_the_way_back():
    world = cluster(3)
    change(world)
    fail_new(world)
    assert state(world) == UPDATE_STATE_PAUSED
    change(world)
    assert world.service().previous_spec.task.container.image == "app:1"
    world.converge()
    assert images(world) == ["app:2"] * 3
    assert state(world) == UPDATE_STATE_COMPLETED


def test_scaling_a_paused_update_keeps_the_spec_to_roll_back_to():
    world = cluster(3)
    change(world)
    fail_new(world)
    spec = world.service().spec
    spec.mode.replicated.replicas = 4
    world.put(update.revise(world.service(), spec))
    assert state(world) == UPDATE_STATE_PAUSED
    assert world.service().previous_spec.task.container.image == "app:1"


def test_going_back_by_hand_while_updating_ends_the_update():
    world = cluster(2)
    change(world)
    step(world)
    change(world, "app:1")
    world.converge()
    assert images(world) == ["app:1"] * 2
    assert state(world) == UPDATE_STATE_COMPLETED


def test_scaling_while_updating_keeps_the_spec_to_roll_back_to():
    world = cluster(2, UpdateConfig(failure_action=FAILURE_ACTION_ROLLBACK, monitor=0))
    change(world)
    world.settle()
    spec = world.service().spec
    spec.mode.replicated.replicas = 3
    world.put(update.revise(world.service(), spec))
    assert world.service().previous_spec.task.container.image == "app:1"


def test_a_failure_after_the_monitor_period_is_not_the_updates():
    world = cluster(2, UpdateConfig(delay=60 * SECOND))
    change(world)
    world.converge()
    world.tick(30)
    world.report(started(world)[0], states.FAILED)
    world.converge()
    assert state(world) == UPDATE_STATE_UPDATING


def test_a_failure_within_the_monitor_period_is():
    world = cluster(2, UpdateConfig(delay=60 * SECOND))
    change(world)
    world.converge()
    world.tick(3)
    world.report(started(world)[0], states.FAILED)
    world.converge()
    assert state(world) == UPDATE_STATE_PAUSED


def test_start_first_failures_leave_the_old_task_serving():
    world = cluster(2, UpdateConfig(order=UPDATE_ORDER_START_FIRST, monitor=0))
    change(world)
    fail_new(world)
    assert state(world) == UPDATE_STATE_PAUSED
    assert images(world) == ["app:1"] * 2
    assert started(world) == []


def test_a_finished_job_does_not_hold_an_update_up():
    world = cluster(2)
    spec = world.service().spec
    spec.task.restart.condition = RESTART_CONDITION_NONE
    spec.task.container.image = "app:2"
    world.put(update.revise(world.service(), spec))
    for _ in range(10):
        step(world)
        for task in started(world):
            if task.status.state == states.RUNNING:
                world.report(task, states.COMPLETE)
    world.settle()
    assert state(world) == UPDATE_STATE_COMPLETED
    assert world.live() == []


def test_a_drained_node_during_an_update_is_no_failure():
    world = cluster(3)
    change(world)
    step(world)
    drained = world.edit_node(started(world)[0].node_id)
    drained.spec.availability = NODE_AVAILABILITY_DRAIN
    world.put(drained)
    world.converge()
    assert state(world) == UPDATE_STATE_COMPLETED
    assert images(world) == ["app:2"] * 3


def test_without_a_previous_template_there_is_nothing_to_roll_back_to():
    world = cluster(1, UpdateConfig(failure_action=FAILURE_ACTION_ROLLBACK, monitor=0))
    change(world)
    same: Service = world.service()
    same.previous_spec.CopyFrom(same.spec)
    world.put(same)
    fail_new(world)
    assert state(world) == UPDATE_STATE_PAUSED
    assert "nothing to roll back to" in world.service().update_status.message


def test_start_first_back_to_a_spec_that_is_still_starting_keeps_that_task() -> None:
    world = cluster(1, UpdateConfig(order=UPDATE_ORDER_START_FIRST, monitor=0))
    for image in ("app:2", "app:3", "app:2"):
        change(world, image)
        world.settle()  # nothing starts meanwhile
    assert [task.spec.container.image for task in world.live()].count("app:2") == 1
    world.converge()
    assert images(world) == ["app:2"]
    assert state(world) == UPDATE_STATE_COMPLETED


def test_start_first_replacement_lost_with_its_node_is_made_again() -> None:
    config = UpdateConfig(order=UPDATE_ORDER_START_FIRST, failure_action=FAILURE_ACTION_CONTINUE, monitor=0)
    world = cluster(1, config)
    spec = world.service().spec
    spec.task.container.image = "app:2"
    spec.task.restart.delay = 5 * SECOND
    world.put(update.revise(world.service(), spec))
    world.settle()
    world.place("a")
    world.report(started(world)[0], states.FAILED)
    world.settle()
    assert state(world) == UPDATE_STATE_COMPLETED  # the rest is the restart policy's
    old_node = world.running()[0].node_id
    spare = next(name for name in ("a", "b", "c") if name != old_node)
    world.place(spare)
    drained = world.edit_node(spare)
    drained.spec.availability = NODE_AVAILABILITY_DRAIN
    world.put(drained)
    world.converge()
    world.tick(5)
    world.converge()
    assert images(world) == ["app:2"]
