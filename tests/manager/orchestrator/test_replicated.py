from collections import Counter

from swarmd.manager.orchestrator.replicated import ReplicatedOrchestrator
from swarmd.proto import task_states as states
from swarmd.proto.objects_pb2 import NODE_AVAILABILITY_DRAIN, NODE_STATE_DOWN, NODE_STATE_READY, Node, Task
from tests.manager.orchestrator.world import World, node, service


def scaled(world: World, replicas: int) -> None:
    changed = world.service()
    changed.spec.mode.replicated.replicas = replicas
    world.put(changed)


def cluster(replicas: int, nodes: int = 3) -> World:
    world = World()
    for number in range(nodes):
        world.put(node(f"node{number}"))
    world.put(service(replicas))
    world.converge()
    return world


def slots(world: World) -> list[int]:
    return [task.slot for task in world.running()]


def test_a_new_service_gets_one_task_per_slot():
    world = World()
    world.put(service(3))
    world.settle()
    tasks = world.tasks()
    assert [task.slot for task in tasks] == [1, 2, 3]
    assert {task.desired_state for task in tasks} == {states.RUNNING}
    assert {task.status.state for task in tasks} == {states.NEW}
    assert {task.spec.container.image for task in tasks} == {"app:1"}


def test_replicas_default_to_one():
    world = World()
    plain = service()
    plain.spec.mode.replicated.ClearField("replicas")
    world.put(plain)
    world.settle()
    assert len(world.tasks()) == 1


def test_networks_in_their_older_place_reach_the_task():
    world = World()
    wired = service()
    wired.spec.networks.add(target="net1")
    world.put(wired)
    world.settle()
    assert [network.target for network in world.tasks()[0].spec.networks] == ["net1"]


def test_one_pass_writes_no_more_than_a_transaction_holds_and_the_next_goes_on():
    world = World()
    world.put(service(250))
    due = world.orchestrator.settle("web", world)
    assert len(world.tasks()) == 100
    assert due is not None and due <= world.now()
    world.settle()
    assert len(world.tasks()) == 250


def test_scaling_up_keeps_what_runs_and_takes_the_lowest_free_slots():
    world = cluster(2)
    before = {task.id for task in world.running()}
    scaled(world, 4)
    world.converge()
    assert slots(world) == [1, 2, 3, 4]
    assert before < {task.id for task in world.running()}


def test_scaling_down_prefers_what_serves_nobody():
    world = cluster(3)
    first = world.running()[0]
    world.report(first, states.FAILED)
    world.settle()  # slot 1 waits for its restart
    scaled(world, 2)
    world.converge()
    assert slots(world) == [2, 3]


def test_scaling_down_takes_from_the_fullest_node_first():
    world = World()
    for name in ("a", "b"):
        world.put(node(name))
    world.put(service(5))
    world.settle()
    world.place("a", "a", "a", "a", "b")
    world.converge()
    scaled(world, 2)
    world.converge()
    assert Counter(task.node_id for task in world.running()) == {"a": 1, "b": 1}
    assert slots(world) == [1, 5]


def test_scaling_to_zero_leaves_nothing():
    world = cluster(3)
    scaled(world, 0)
    world.converge()
    assert world.tasks() == []


def test_a_slot_that_is_opened_again_waits_for_the_task_that_still_stops_there():
    world = cluster(2)
    scaled(world, 1)
    world.settle()
    scaled(world, 2)
    world.settle()
    new = next(task for task in world.live() if task.slot == 2)
    assert new.desired_state == states.READY
    world.converge()
    assert next(task for task in world.live() if task.slot == 2).desired_state == states.RUNNING


def test_the_tasks_of_a_removed_service_end_after_it():
    world = cluster(3)
    world.delete(world.service())
    world.settle()
    assert {task.desired_state for task in world.tasks()} == {states.REMOVE}
    world.converge()
    assert world.tasks() == []


def test_a_removed_service_does_not_wait_for_a_dead_node():
    world = cluster(3)
    down = world.edit_node("node0")
    down.status.state = NODE_STATE_DOWN
    world.put(down)
    world.delete(world.service())
    world.converge()
    assert {task.node_id for task in world.tasks()} == {"node0"}  # till the node comes back, or is given up
    down.status.state = NODE_STATE_READY
    world.put(down)
    world.converge()
    assert world.tasks() == []


def test_tasks_of_a_dead_node_are_replaced_at_once_and_no_attempt_is_counted():
    world = cluster(3)
    down = world.edit_node("node1")
    down.status.state = NODE_STATE_DOWN
    world.put(down)
    world.converge()
    assert slots(world) == [1, 2, 3]
    assert "node1" not in {task.node_id for task in world.running()}
    assert not world.service().restarts.events


def test_a_drained_nodes_tasks_move_once_they_have_stopped_there():
    world = cluster(3)
    drained = world.edit_node("node1")
    drained.spec.availability = NODE_AVAILABILITY_DRAIN
    world.put(drained)
    world.settle()
    moving = next(task for task in world.live() if not task.node_id)
    assert moving.desired_state == states.READY
    world.converge()
    assert slots(world) == [1, 2, 3]
    assert "node1" not in {task.node_id for task in world.running()}
    assert not world.service().restarts.events


def test_a_replacement_waits_a_minute_at_most_for_a_node_that_does_not_answer():
    world = cluster(1)
    old = world.running()[0]
    drained = world.edit_node(old.node_id)
    drained.spec.availability = NODE_AVAILABILITY_DRAIN
    world.put(drained)
    world.settle()
    assert [task.desired_state for task in world.live()] == [states.READY]
    due = world.due()
    assert due is not None and 59 < (due - world.now()) / 1e9 <= 60
    world.tick(60)
    world.settle()
    assert [task.desired_state for task in world.live()] == [states.RUNNING]


def test_a_replacement_stops_waiting_when_the_old_tasks_node_dies():
    world = cluster(1)
    old = world.running()[0]
    changed = world.edit_node(old.node_id)
    changed.spec.availability = NODE_AVAILABILITY_DRAIN
    world.put(changed)
    world.settle()
    changed.status.state = NODE_STATE_DOWN
    world.put(changed)
    world.settle()
    assert [task.desired_state for task in world.live()] == [states.RUNNING]


def test_the_loop_needs_no_memory():
    """Another leader's loop, in the middle of things, has nothing to add or to undo."""
    world = cluster(3)
    world.report(world.running()[0], states.FAILED)
    world.settle()
    before = world.revision
    successor = ReplicatedOrchestrator(world, world, lambda: "unused")  # type: ignore[arg-type]
    successor.settle("web", world)
    assert world.revision == before


def test_objects_of_the_plan_are_copies():
    world = cluster(1)
    task = world.running()[0]
    bytes_before = task.SerializeToString(deterministic=True)
    scaled(world, 0)
    world.settle()
    assert task.SerializeToString(deterministic=True) == bytes_before


def test_a_removed_node_counts_as_lost():
    world = cluster(2, nodes=2)
    lost = world.edit_node("node1")
    world.delete(lost)
    world.converge()
    assert slots(world) == [1, 2]
    assert {task.node_id for task in world.running()} == {"node0"}
    assert [task.status.state for task in world.find(Task, node_id="node1")] == [states.ORPHANED]
    assert world.find(Node)
