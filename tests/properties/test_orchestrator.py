"""What holds of the orchestrator's plans whatever users, nodes and tasks do, and in whatever order."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarmd.manager.orchestrator import update
from swarmd.manager.orchestrator.replicated import removal_order
from swarmd.manager.orchestrator.slots import OLD_TASK_TIMEOUT, Slot
from swarmd.manager.store.edit import edited
from swarmd.proto import task_states as states
from swarmd.proto.clock import nanoseconds
from swarmd.proto.objects_pb2 import (
    NODE_AVAILABILITY_ACTIVE,
    NODE_AVAILABILITY_DRAIN,
    NODE_STATE_DOWN,
    NODE_STATE_READY,
    RestartPolicy,
    Task,
    UpdateConfig,
)
from tests.manager.orchestrator.world import SECOND, World, node, service

NODES = ("a", "b", "c")


class Cluster(RuleBasedStateMachine):
    """Stop-first services only: with start-first two tasks of a slot may run at once, on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        for name in NODES:
            self.world.put(node(name))

    @initialize(
        replicas=st.integers(0, 5),
        policy=st.builds(
            RestartPolicy,
            delay=st.sampled_from([0, SECOND, 5 * SECOND]),
            condition=st.sampled_from([0, 1]),
        ),
        config=st.builds(
            UpdateConfig,
            parallelism=st.integers(0, 3),
            delay=st.sampled_from([0, SECOND]),
            failure_action=st.sampled_from([0, 1, 2]),
            monitor=st.sampled_from([0, SECOND]),
            max_failure_ratio=st.sampled_from([0.0, 0.5]),
        ),
    )
    def start(self, replicas: int, policy: RestartPolicy, config: UpdateConfig) -> None:
        wanted = service(replicas)
        wanted.spec.task.restart.CopyFrom(policy)
        wanted.spec.update.CopyFrom(config)
        self.world.put(wanted)

    # ------------------------------------------------------------ what managers and agents do

    @rule()
    def loops_look(self) -> None:
        self.world.pass_once()

    @rule()
    def scheduler_places(self) -> None:
        self.world.place()

    @rule()
    def agents_obey(self) -> None:
        self.world.obey()

    @rule(seconds=st.sampled_from([0.5, 1, 5, 30]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    # ------------------------------------------------------------ what goes wrong

    @precondition(lambda self: self.world.running())
    @rule(pick=st.integers(0, 9), state=st.sampled_from([states.FAILED, states.COMPLETE]))
    def a_task_ends(self, pick: int, state: int) -> None:
        running = self.world.running()
        self.world.report(running[pick % len(running)], state)  # type: ignore[arg-type]

    @rule(name=st.sampled_from(NODES))
    def a_node_dies(self, name: str) -> None:
        self._set_state(name, NODE_STATE_DOWN)

    @rule(name=st.sampled_from(NODES))
    def a_node_returns(self, name: str) -> None:
        # What it hears first is which of its tasks have been given to others meanwhile.
        self.world.pass_once()
        self._set_state(name, NODE_STATE_READY)
        self.world.obey()

    def _set_state(self, name: str, state: int) -> None:
        changed = self.world.edit_node(name)
        changed.status.state = state  # type: ignore[assignment]
        self.world.put(changed)

    # ------------------------------------------------------------ what users do

    @rule(replicas=st.integers(0, 5))
    def scale(self, replicas: int) -> None:
        spec = self.world.service().spec
        spec.mode.replicated.replicas = replicas
        self.world.put(update.revise(self.world.service(), spec))

    @rule(image=st.sampled_from(["app:1", "app:2", "app:3"]))
    def update(self, image: str) -> None:
        spec = self.world.service().spec
        spec.task.container.image = image
        self.world.put(update.revise(self.world.service(), spec))

    @rule(name=st.sampled_from(NODES), drain=st.booleans())
    def drain(self, name: str, drain: bool) -> None:
        self._set_availability(name, NODE_AVAILABILITY_DRAIN if drain else NODE_AVAILABILITY_ACTIVE)

    def _set_availability(self, name: str, availability: int) -> None:
        changed = self.world.edit_node(name)
        changed.spec.availability = availability  # type: ignore[assignment]
        self.world.put(changed)

    # ------------------------------------------------------------ what holds

    @invariant()
    def one_task_of_a_slot_may_run(self) -> None:
        """On nodes that answer, not counting tasks that were told to stop too long ago to be waited for."""
        up = {name for name in NODES if self.world.edit_node(name).status.state == NODE_STATE_READY}
        may_run = [
            task
            for task in self.world.tasks()
            if task.node_id in up
            and task.status.state not in states.ENDED
            and (task.desired_state == states.RUNNING or task.status.state >= states.STARTING)
            and (
                task.desired_state <= states.RUNNING
                or nanoseconds(task.desired_since) + OLD_TASK_TIMEOUT > self.world.now()
            )
        ]
        twice = [slot for slot, n in Counter(task.slot for task in may_run).items() if n > 1]
        assert not twice, f"slots {twice} run twice: {self.world.describe()}"

    @invariant()
    def one_wanted_task_per_slot(self) -> None:
        wanted = Counter(task.slot for task in self.world.tasks() if task.desired_state <= states.RUNNING)
        assert all(n == 1 for n in wanted.values()), self.world.describe()

    def teardown(self) -> None:
        """Once nothing goes wrong any more, the service becomes what it is asked to be."""
        if not self.world.find(Task) and not self.world.orchestrator.keys(self.world):
            return
        for name in NODES:
            self._set_state(name, NODE_STATE_READY)
            self._set_availability(name, NODE_AVAILABILITY_ACTIVE)
        come_to_rest(self.world)
        wanted = self.world.service()
        held = {task.slot for task in self.world.tasks() if task.desired_state < states.REMOVE}
        assert len(held) == wanted.spec.mode.replicated.replicas, self.world.describe()
        left = {task.slot for task in self.world.tasks() if task.final}
        assert {task.slot for task in self.world.running()} | left == held, self.world.describe()


def come_to_rest(world: World) -> None:
    for _ in range(200):
        world.converge()
        if (due := world.due()) is None:
            return
        world.time = max(world.time, due)
    raise AssertionError(f"the cluster always has something due: {world.describe()}")


Cluster.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestCluster = Cluster.TestCase


@settings(deadline=None, max_examples=40)
@given(replicas=st.integers(1, 3), attempts=st.integers(1, 5), delay=st.integers(0, 10))
def test_a_slot_is_restarted_as_often_as_the_policy_says(replicas: int, attempts: int, delay: int) -> None:
    world = World()
    world.put(node("a"))
    wanted = service(replicas)
    wanted.spec.task.restart.CopyFrom(RestartPolicy(max_attempts=attempts, delay=delay * SECOND))
    world.put(wanted)
    ended: Counter[int] = Counter()
    for _ in range(attempts + 3):
        come_to_rest(world)
        for task in world.running():
            ended[task.slot] += 1
            world.report(task, states.FAILED)
    assert ended == dict.fromkeys(range(1, replicas + 1), attempts + 1)


@settings(deadline=None, max_examples=60)
@given(down=st.integers(0, 12), up=st.integers(0, 12), passes=st.integers(0, 3))
def test_scaling_down_then_up_ends_with_every_slot_once(down: int, up: int, passes: int) -> None:
    world = World()
    for name in NODES:
        world.put(node(name))
    world.put(service(6))
    world.converge()
    for replicas in (down, up):
        changed = world.service()
        changed.spec.mode.replicated.replicas = replicas
        world.put(changed)
        for _ in range(passes):
            world.pass_once()
    come_to_rest(world)
    assert len(world.running()) == up
    assert len({task.slot for task in world.running()}) == up


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=20), st.data())
def test_scaling_down_takes_the_idle_first_and_keeps_the_rest_even(
    placed: list[tuple[str, bool]], data: st.DataObject
) -> None:
    slots = []
    for number, (name, runs) in enumerate(placed, start=1):
        task = Task(id=f"t{number}", slot=number, node_id=name, desired_state=states.RUNNING)
        task.status.state = states.RUNNING if runs else states.ASSIGNED
        slots.append(Slot(number, (edited(task),)))
    gone = data.draw(st.integers(0, len(slots)))
    order = removal_order(slots)
    left = order[gone:]
    serving = [slot for slot in left if slot.tasks[0].status.state == states.RUNNING]
    if len(serving) < len(left):
        assert all(slot.tasks[0].status.state != states.RUNNING for slot in order[:gone])
        return
    # No node was taken from while another had two more.
    before = Counter(slot.tasks[0].node_id for slot in slots if slot.tasks[0].status.state == states.RUNNING)
    after = Counter(slot.tasks[0].node_id for slot in left)
    for name, n in before.items():
        if after[name] < n:
            assert max(after.values(), default=0) <= after[name] + 1
