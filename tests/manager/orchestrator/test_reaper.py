from swarmd.manager.store.edit import edited
from swarmd.proto import task_states as states
from swarmd.proto.clock import timestamp
from swarmd.proto.objects_pb2 import (
    NODE_STATE_DOWN,
    RESTART_CONDITION_NONE,
    Cluster,
    Service,
    Task,
)
from tests.manager.orchestrator.world import World, node, service


def cluster(replicas: int = 1, limit: int | None = None) -> World:
    world = World()
    kept = Cluster(id="cluster")
    if limit is not None:
        kept.spec.orchestration.task_history_retention_limit = limit
    world.put(kept)
    for name in ("a", "b"):
        world.put(node(name))
    wanted = service(replicas)
    wanted.spec.task.restart.delay = 0
    world.put(wanted)
    world.converge()
    return world


def fail(world: World, times: int) -> None:
    for _ in range(times):
        world.report(world.running()[0], states.FAILED)
        world.converge()


def history(world: World) -> list[Task]:
    return [task for task in world.tasks() if task.desired_state == states.SHUTDOWN]


def test_five_ended_tasks_stay_by_default_the_newest():
    world = cluster()
    fail(world, 8)
    kept = history(world)
    assert len(kept) == 5
    assert min(task.id for task in kept) > "task0003"


def test_the_limit_is_the_clusters():
    world = cluster(limit=2)
    fail(world, 5)
    assert len(history(world)) == 2


def test_no_history_at_all():
    world = cluster(limit=0)
    fail(world, 3)
    assert history(world) == []
    assert len(world.running()) == 1


def test_a_negative_limit_keeps_everything():
    world = cluster(limit=-1)
    fail(world, 9)
    assert len(history(world)) == 9


def test_the_last_word_on_a_slot_is_kept():
    world = cluster(limit=0)
    done = world.service()
    done.spec.task.restart.condition = RESTART_CONDITION_NONE
    done.spec_version += 1
    world.put(done)
    world.converge()
    world.report(world.running()[0], states.COMPLETE)
    world.converge()
    assert world.live() == []
    assert [task.final for task in world.tasks()] == [True]


def test_a_task_that_never_reached_a_node_leaves_no_history():
    world = World()
    world.put(service(1))
    world.settle()
    changed = world.service()
    changed.spec.task.container.image = "app:2"
    changed.spec_version += 1
    world.put(changed)
    world.settle()
    assert [task.spec.container.image for task in world.tasks()] == ["app:2"]


def test_tasks_on_a_node_that_is_down_for_a_day_are_given_up():
    world = cluster(2)
    down = world.edit_node("a")
    down.status.state = NODE_STATE_DOWN
    down.heard_at.CopyFrom(timestamp(world.now()))
    world.put(down)
    world.converge()
    (stale,) = world.find(Task, node_id="a")
    assert stale.status.state == states.RUNNING
    due = world.reaper.settle("web", world)
    assert due is not None and 23.9 < (due - world.now()) / 3600e9 <= 24
    world.tick(24 * 3600)
    world.settle()
    assert world.get(Task, stale.id).status.state == states.ORPHANED
    assert len(world.running()) == 2


def test_tasks_of_a_service_that_is_no_more_go():
    world = cluster(2)
    world.delete(world.get(Service, "web"))
    for _ in range(5):
        for key in sorted(world.reaper.keys(world)):
            world.reaper.settle(key, world)
        world.obey()
    assert world.tasks() == []


def test_a_long_history_goes_in_transactions_that_fit():
    world = cluster(limit=-1)
    for number in range(250):
        past = edited(world.running()[0])
        past.id = f"past{number:03}"
        past.desired_state = states.SHUTDOWN
        past.status.state = states.FAILED
        past.created_at.CopyFrom(timestamp(number))
        world.objects[Task, past.id] = past
    limited = edited(world.get(Cluster, "cluster"))
    limited.spec.orchestration.task_history_retention_limit = 1
    world.put(limited)
    world.reaper.settle("web", world)
    assert len(world.tasks()) == 151
    world.settle()
    assert len(history(world)) == 1
