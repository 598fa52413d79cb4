"""A dispatcher on loopback, and agents that talk to it; who they are is told by metadata instead of a certificate."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest

from swarmd.manager import interceptor
from swarmd.manager.dispatcher import Dispatcher
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject, Store, T, Tx
from swarmd.manager.store.memory import MemoryStore
from swarmd.proto import dispatcher_pb2 as wire
from swarmd.proto import dispatcher_pb2_grpc
from swarmd.proto import objects_pb2 as pb
from swarmd.proto import task_states as states
from swarmd.proto.clock import SystemClock
from swarmd.proto.tls import Identity

CLUSTER = "cluster1"
CLOCK = SystemClock()
Known = dict[tuple[str, ...], Any]  # by kind and ids


def told_identity(context: Any) -> Identity:
    return Identity(dict(context.invocation_metadata())["node"], pb.NODE_ROLE_WORKER, CLUSTER)


@asynccontextmanager
async def dispatching(
    store: Store, manager_id: str, monkeypatch: pytest.MonkeyPatch, clock: Any = CLOCK
) -> AsyncIterator[str]:
    """A running dispatcher; yields its address."""
    monkeypatch.setattr(interceptor, "peer_identity", told_identity)
    server = grpc.aio.server(interceptors=(interceptor.ErrorInterceptor(CLUSTER, _message),))
    dispatcher = Dispatcher(store, clock, manager_id, told_identity, b"root")
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(dispatcher, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(dispatcher.run())
        await asyncio.sleep(0)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop(0.2)


async def _message(error: Exception) -> str:
    return str(error)


async def goodbye(address: str, node_id: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = dispatcher_pb2_grpc.DispatcherStub(channel)
        await stub.Goodbye(wire.GoodbyeRequest(), metadata=(("node", node_id),))


class FakeAgent:
    """One session; `known` is what the node knows from it, by kind and ids."""

    def __init__(self, call: Any, node_id: str) -> None:
        self._call = call
        self._node_id = node_id
        self.known: Known = {}
        self.fulls = 0
        self.infos: list[wire.NodeInfo] = []
        self.acked: list[int] = []
        self.welcome: wire.Welcome | None = None
        self.error: grpc.aio.AioRpcError | None = None

    async def hello(self) -> None:
        resources = pb.Resources(nano_cpus=1, memory_bytes=1)
        addr = f"10.1.1.{ord(self._node_id[-1])}"
        description = pb.NodeDescription(hostname=f"host-{self._node_id}", addr=addr, resources=resources)
        await self._call.write(wire.AgentMessage(hello=wire.Hello(description=description)))

    async def beat(self, period: float) -> None:
        while True:
            await asyncio.sleep(period)
            await self._call.write(wire.AgentMessage(heartbeat=wire.Heartbeat()))

    async def report(self, batch: int, **moves: int) -> None:
        updates = [wire.TaskStatusUpdate(task_id=id, status=pb.TaskStatus(state=to)) for id, to in moves.items()]  # type: ignore[arg-type]
        await self._call.write(wire.AgentMessage(statuses=wire.Statuses(batch=batch, updates=updates)))

    def drop(self) -> None:
        self._call.cancel()

    async def listen(self) -> None:
        try:
            async for message in self._call:
                self._take(message)
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise

    def _take(self, message: wire.ManagerMessage) -> None:
        match message.WhichOneof("of"):
            case "welcome":
                self.welcome = message.welcome
            case "assignments":
                self.fulls += message.assignments.full
                apply(self.known, message.assignments)
            case "statuses_ack":
                self.acked.append(message.statuses_ack.batch)
            case "node_info":
                self.infos.append(message.node_info)

    def keys(self, kind: str) -> set[tuple[str, ...]]:
        return {key[1:] for key in self.known if key[0] == kind}


def apply(known: Known, assignments: wire.Assignments) -> None:
    """Keep what a node knows as it is told to."""
    if assignments.full:
        known.clear()
    for change in assignments.changes:
        kind = change.WhichOneof("of") or ""
        known[kind, *_ids(getattr(change, kind))] = getattr(change, kind)
    for removal in assignments.removals:
        what = removal.WhichOneof("of") or ""
        gone = getattr(removal, what)
        ids = (gone,) if isinstance(gone, str) else _ids(gone)
        del known[what.removesuffix("_id"), *ids]


def _ids(obj: Any) -> tuple[str, ...]:
    match obj:
        case wire.NetworkEndpoint():
            return obj.network_id, obj.task_id
        case wire.NodeEndpoint():
            return obj.network_id, obj.node_id
        case wire.ServiceEndpoint():
            return (obj.service_id,)
    return (obj.id,)


@asynccontextmanager
async def agent(address: str, node_id: str, *, period: float | None = 0.2) -> AsyncIterator[FakeAgent]:
    """An agent with its session open; period None: it says hello and then nothing."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session(metadata=(("node", node_id),))  # type: ignore[call-arg]
        made = FakeAgent(call, node_id)
        await made.hello()
        tasks = [group.create_task(made.listen())]
        if period is not None:
            tasks.append(group.create_task(_ignoring(made.beat(period))))
        yield made
        for task in tasks:
            task.cancel()
        call.cancel()


async def _ignoring(beating: Any) -> None:
    try:
        await beating
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) and task.cancelling():
            raise


async def until(done: Callable[[], object], seen: Callable[[], object], seconds: float = 10) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not done():  # noqa: ASYNC110 (whatever runs may change it)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"last seen: {seen()}") from None


# ---------------------------------------------------------------- objects


async def put(store: Store, *objects: AnyObject) -> None:
    def write(tx: Tx, obj: AnyObject) -> None:
        tx.put(edited(obj))

    await store.batch(objects, write)


async def change(store: Store, kind: type[T], id: str, edit: Callable[[T], object]) -> None:
    def write(tx: Tx) -> None:
        stored = tx.get(kind, id)
        assert stored is not None
        copy = edited(stored)
        edit(copy)
        tx.put(copy)

    await store.transact(write)


async def delete(store: Store, kind: type[T], id: str) -> None:
    await store.transact(partial(_delete, kind, id))


def _delete(kind: type[T], id: str, tx: Tx) -> None:
    stored = tx.get(kind, id)
    assert stored is not None
    tx.delete(stored)


def state_of(store: MemoryStore, node_id: str) -> int:
    node = store.view().get(pb.Node, node_id)
    return node.status.state if node else -1


def task(id: str, node_id: str, state: int = states.ASSIGNED, *, networks: Sequence[str] = ()) -> pb.Task:
    made = pb.Task(id=id, service_id="web", service_name="web", slot=1, node_id=node_id, desired_state=states.RUNNING)
    made.status.state = state  # type: ignore[assignment]
    for network in networks:
        made.networks.add(network_id=network, addresses=[f"10.0.1.{ord(id[-1])}/24"])
    return made


def node(id: str, *, networks: Sequence[str] = (), manager_addr: str = "") -> pb.Node:
    made = pb.Node(id=id, description=pb.NodeDescription(hostname=f"host-{id}", addr=f"10.1.1.{ord(id[-1])}"))
    if manager_addr:
        made.manager_status.addr = manager_addr
        made.manager_status.reachability = pb.REACHABILITY_REACHABLE
    for network in networks:
        made.networks.add(network_id=network, addresses=[f"10.0.1.{200 + ord(id[-1]) % 50}/24"])
    return made


def network(id: str, *, ingress: bool = False) -> pb.Network:
    return pb.Network(id=id, spec=pb.NetworkSpec(name=id, ingress=ingress), subnet="10.0.1.0/24")
