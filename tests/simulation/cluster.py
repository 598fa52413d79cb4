"""One simulated cluster: managers, agents, users and faults, all from one seed.

Faults go on for a while and then stop; from there on the cluster has to become what its users asked for.
What must hold at any moment, and in the end, is in `invariants`.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from swarmd.manager.orchestrator import update
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import R, Tx
from swarmd.proto import task_states as states
from swarmd.proto.errors import Unavailable
from swarmd.proto.objects_pb2 import (
    FAILURE_ACTION_CONTINUE,
    FAILURE_ACTION_PAUSE,
    FAILURE_ACTION_ROLLBACK,
    NODE_AVAILABILITY_ACTIVE,
    NODE_AVAILABILITY_DRAIN,
    UPDATE_ORDER_START_FIRST,
    UPDATE_ORDER_STOP_FIRST,
    Node,
    NodeAvailability,
    Service,
    ServiceSpec,
    Task,
    TaskStatus,
    UpdateConfig,
)
from tests.manager.orchestrator.world import SECOND, node, service
from tests.simulation import invariants, virtual
from tests.simulation.agent import Agent
from tests.simulation.invariants import Violation
from tests.simulation.manager import Manager
from tests.simulation.network import Network
from tests.simulation.store import Etcd, Weather

FAULTS = 30.0  # seconds of faults
PATIENCE = 240.0  # seconds to come to rest after them; a restart may be backed off by a minute
LAST_LINES = 60  # of the trace, shown with a failure
IMAGES = ("app:1", "app:2", "app:3")


@dataclass
class Outcome:
    seed: int
    trace: list[str]

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


class Cluster:
    def __init__(
        self, seed: int, group: asyncio.TaskGroup, trace: list[str], managers: int = 3, nodes: int = 3
    ) -> None:
        self.rng = random.Random(seed)
        self.group = group
        self.clock = virtual.VirtualClock()
        self.weather = Weather()
        self.network = Network(self.rng)
        self.trace = trace
        self.etcd = Etcd(self.clock, self.rng, self.weather)
        self.store = self.etcd.store(faulty=False)  # the simulation's own eyes: always right
        self.heard: dict[str, float] = {}
        self.managers = [self._manager(f"manager{number}") for number in range(managers)]
        self.agents = {name: self._agent(name) for name in (f"node{number}" for number in range(nodes))}
        self.chosen = {name: self.rng.choice(self.managers) for name in self.agents}
        self.running: dict[str, asyncio.Task[None]] = {}
        self.acknowledged: dict[str, int] = {}  # service -> newest operation that its user saw succeed
        self.leaving: set[str] = set()  # asked to be removed, with whatever answer
        self.removed: set[str] = set()
        self.operations = 0
        self.repairs: list[asyncio.Task[None]] = []  # each fault's, which end it
        self.violations: asyncio.Queue[Violation] = asyncio.Queue()

    def _manager(self, name: str) -> Manager:
        return Manager(name, self.etcd.store(), self.etcd, self.clock, self._new_id, self.heard)

    def _agent(self, name: str) -> Agent:
        return Agent(name, self.rng, self.clock, self._on_start, failure_rate=0.2)

    def _new_id(self) -> str:
        return f"{self.rng.getrandbits(64):016x}"

    def say(self, line: str) -> None:
        self.trace.append(f"{self.clock.monotonic():9.4f} {line}")

    # ------------------------------------------------------------ the run

    async def run(self) -> None:
        for name in self.agents:
            await self.store.transact(partial(_join, name))
        self.group.create_task(self._report_violations())
        self.group.create_task(self._watch())
        for manager in self.managers:
            self._start(manager)
        for agent in self.agents.values():
            self.group.create_task(self._session(agent))
        users = [self.group.create_task(self._user()) for _ in range(2)]
        faults = self.group.create_task(self._break_things())
        await self.clock.sleep(FAULTS)
        for task in (*users, faults, *self.repairs):
            task.cancel()
        await self._mend()
        await self._settle()

    async def _settle(self) -> None:
        deadline = self.clock.monotonic() + PATIENCE
        quiet = 0
        while quiet < 3:  # it must not only get there, but stay
            await self.clock.sleep(1.0)
            why = self.unsettled()
            quiet = 0 if why else quiet + 1
            if why and self.clock.monotonic() > deadline:
                raise Violation(f"the cluster does not come to rest: {why}")

    def _start(self, manager: Manager) -> None:
        self.running[manager.name] = self.group.create_task(manager.run())

    # ------------------------------------------------------------ faults

    async def _break_things(self) -> None:
        while True:
            await self.clock.sleep(self.rng.uniform(0.5, 6.0))
            fault = self.rng.choice((self._kill_manager, self._depose, self._kill_host, self._cut_host))
            self.repairs.append(self.group.create_task(fault()))

    async def _kill_manager(self) -> None:
        manager = self.rng.choice(self.managers)
        task = self.running.pop(manager.name, None)
        if task is None:
            return
        self.say(f"{manager.name} is killed")
        task.cancel()
        await self.clock.sleep(self.rng.uniform(0.5, 5.0))
        if manager.name not in self.running:
            self.say(f"{manager.name} starts")
            self._start(manager)

    async def _depose(self) -> None:
        self.say("the leader's key is lost")
        self.etcd.depose()

    async def _kill_host(self) -> None:
        agent = self.rng.choice(list(self.agents.values()))
        if not agent.up:
            return
        self.say(f"{agent.name} dies")
        agent.die()
        await self.clock.sleep(self.rng.uniform(1.0, 15.0))
        if not agent.up:
            self.say(f"{agent.name} boots")
            agent.boot()

    async def _cut_host(self) -> None:
        name = self.rng.choice(list(self.agents))
        self.say(f"{name} is cut off")
        self.network.cut.add(name)
        await self.clock.sleep(self.rng.uniform(1.0, 15.0))
        if name in self.network.cut:
            self.say(f"{name} is reached again")
            self.network.cut.discard(name)

    async def _mend(self) -> None:
        """End the faults, all but one: in every third run a host stays dead."""
        self.say("the faults stop")
        lost = self.rng.choice(list(self.agents)) if self.rng.random() < 1 / 3 else None
        self.network.loss = self.weather.loss = 0.0
        self.network.cut.clear()
        for agent in self.agents.values():
            agent.failure_rate = 0.0
            if agent.name == lost:
                agent.die()
            elif not agent.up:
                agent.boot()
            for container in agent.containers.values():
                if container.timer and container.state == states.RUNNING and not container.stopping:
                    container.timer.cancel()  # it was going to fail
        for manager in self.managers:
            if manager.name not in self.running:
                self._start(manager)
        for name in self.agents:
            await self.store.transact(partial(_set_availability, name, NODE_AVAILABILITY_ACTIVE))

    # ------------------------------------------------------------ agents and their managers

    async def _session(self, agent: Agent) -> None:
        """Heartbeats and statuses one way, all assignments the other; a manager that says nothing is left."""
        while True:
            await self.clock.sleep(self.rng.uniform(0.8, 1.0))
            if not agent.up:
                continue
            if self.clock.monotonic() - agent.heard > 3.0:
                self.chosen[agent.name] = self.rng.choice(self.managers)
            manager, sent = self.chosen[agent.name], dict(agent.unacknowledged)
            self.network.send(agent.name, manager.name, partial(self._serve, manager, agent, sent))

    def _serve(self, manager: Manager, agent: Agent, sent: dict[str, TaskStatus]) -> None:
        if manager.name not in self.running:
            return
        self.heard[agent.name] = self.clock.monotonic()
        if sent:
            self.group.create_task(self._take(manager, agent, sent))
        revision, tasks = manager.assignments(agent.name)
        self.network.send(manager.name, agent.name, partial(agent.assign, revision, tasks))

    async def _take(self, manager: Manager, agent: Agent, sent: dict[str, TaskStatus]) -> None:
        if await manager.take_statuses(sent):
            self.network.send(manager.name, agent.name, partial(agent.acknowledge, sent))

    # ------------------------------------------------------------ users

    async def _user(self) -> None:
        while True:
            await self.clock.sleep(self.rng.uniform(0.2, 6.0))
            operate = self.rng.choice((self._create, self._scale, self._scale, self._update, self._remove, self._drain))
            self.operations += 1
            try:
                await operate(self.operations)
            except Unavailable:
                continue  # it may have been done, or not: the user was told so

    async def _create(self, operation: int) -> None:
        if len(self.store.view().find(Service)) >= 3:
            return
        wanted = service(self.rng.randint(1, 4), id=f"service{operation}")
        wanted.spec.labels["operation"] = str(operation)
        wanted.spec.task.restart.delay = self.rng.choice((0, SECOND, 5 * SECOND))
        wanted.spec.task.restart.max_attempts = self.rng.choice((0, 0, 3))
        wanted.spec.update.CopyFrom(
            UpdateConfig(
                parallelism=self.rng.randint(0, 2),
                monitor=SECOND,
                failure_action=self.rng.choice(
                    (FAILURE_ACTION_CONTINUE, FAILURE_ACTION_PAUSE, FAILURE_ACTION_ROLLBACK)
                ),
                order=self.rng.choice((UPDATE_ORDER_STOP_FIRST, UPDATE_ORDER_START_FIRST)),
            )
        )
        await self._ask(lambda tx: tx.put(wanted))
        if wanted.id not in self.leaving:
            self.acknowledged[wanted.id] = 0
        self.say(f"{wanted.id} is created with {wanted.spec.mode.replicated.replicas} replicas")

    async def _scale(self, operation: int) -> None:
        replicas = self.rng.randint(0, 5)

        def edit(spec: ServiceSpec) -> None:
            spec.mode.replicated.replicas = replicas

        await self._revise(operation, edit, f"scaled to {replicas}")

    async def _update(self, operation: int) -> None:
        image = self.rng.choice(IMAGES)

        def edit(spec: ServiceSpec) -> None:
            spec.task.container.image = image

        await self._revise(operation, edit, f"updated to {image}")

    async def _revise(self, operation: int, edit: Callable[[ServiceSpec], None], what: str) -> None:
        there = sorted(found.id for found in self.store.view().find(Service))
        if not there:
            return
        chosen = self.rng.choice(there)

        def revise(tx: Tx) -> bool:
            current = tx.get(Service, chosen)
            if current is None:
                return False
            spec = edited(current.spec)
            edit(spec)
            spec.labels["operation"] = str(max(operation, int(spec.labels["operation"])))
            tx.put(update.revise(current, spec))
            # A rollback takes back what users did since.
            return spec.update.failure_action != FAILURE_ACTION_ROLLBACK

        if await self._ask(revise) and chosen not in self.leaving:
            self.acknowledged[chosen] = max(operation, self.acknowledged.get(chosen, 0))
            self.say(f"{chosen} is {what}")

    async def _remove(self, operation: int) -> None:
        there = sorted(found.id for found in self.store.view().find(Service))
        if len(there) < 2:
            return
        chosen = self.rng.choice(there)

        def remove(tx: Tx) -> None:
            current = tx.get(Service, chosen)
            if current is None:
                raise Unavailable(f"{chosen} is not known here yet")
            tx.delete(current)

        self.acknowledged.pop(chosen, None)  # from here on it may be gone, whatever the answer is
        self.leaving.add(chosen)
        await self._ask(remove)
        self.removed.add(chosen)
        self.say(f"{chosen} is removed")

    async def _drain(self, operation: int) -> None:
        name = self.rng.choice(list(self.agents))
        availability = self.rng.choice((NODE_AVAILABILITY_DRAIN, NODE_AVAILABILITY_ACTIVE))
        await self._ask(partial(_set_availability, name, availability))
        self.say(f"{name} is {'drained' if availability == NODE_AVAILABILITY_DRAIN else 'active'}")

    async def _ask(self, fn: Callable[[Tx], R]) -> R:
        """Have a manager do it: any that runs."""
        manager = self.rng.choice(self.managers)
        if manager.name not in self.running:
            raise Unavailable(f"{manager.name} does not answer")
        return await manager.store.transact(fn)

    # ------------------------------------------------------------ what is watched

    async def _report_violations(self) -> None:
        """Bring what callbacks found into the group, which ends the run at once."""
        raise await self.violations.get()

    async def _watch(self) -> None:
        async with self.store.view_and_watch() as (_, commits):
            async for commit in commits:
                for change in commit.changes:
                    invariants.check_change(self.store.view(), change)
                    if isinstance(change.obj, Task):
                        self.say(invariants.describe(change))

    def _on_start(self, agent: Agent, task: Task) -> None:
        self.say(f"{agent.name} starts {task.id}, slot {task.slot} of {task.service_name}")
        try:
            invariants.check_start(self.store.view(), self.agents.values(), agent, task)
        except Violation as violation:
            self.violations.put_nowait(violation)

    def unsettled(self) -> str:
        """Why the cluster is not yet as it should be, or nothing."""
        return invariants.unsettled(self.store.view(), self.agents.values(), self.acknowledged, self.removed)


async def _simulate(seed: int) -> Outcome:
    trace: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            cluster = Cluster(seed, group, trace)
            await cluster.run()
            raise _Over
    except* _Over:
        pass
    except* Exception as errors:
        replay = f"replay with: python -m tests.simulation --seed {seed}"
        lines = [f"seed {seed}: {_first(errors)!r}", replay, *trace[-LAST_LINES:]]
        raise Violation("\n".join(lines)) from errors
    return Outcome(seed, trace)


def _join(node_id: str, tx: Tx) -> None:
    tx.put(node(node_id))


def _set_availability(node_id: str, availability: NodeAvailability.ValueType, tx: Tx) -> None:
    current = tx.get(Node, node_id)
    assert current is not None
    changed = edited(current)
    changed.spec.availability = availability
    tx.put(changed)


class _Over(Exception):
    """The run is over: everything in its group stops."""


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def simulate(seed: int) -> Outcome:
    """Run one cluster; raise Violation, with the last lines of its trace, if something that must hold did not."""
    return virtual.run(_simulate(seed))
