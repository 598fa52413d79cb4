"""The control API: what a manager's node daemon calls to serve the Engine API.  Callers have to be managers.

One generic method per verb; what differs between kinds is in kinds.py, filters.py and the files they name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from swarmd.manager.control import clusters
from swarmd.manager.control.filters import BY_KIND, select
from swarmd.manager.control.kinds import Kind, kind_of, opened
from swarmd.manager.control.logs import LogMerger
from swarmd.manager.control.refs import resolve
from swarmd.manager.store.interface import Election, Store, Tx
from swarmd.proto import control_pb2 as pb
from swarmd.proto import control_pb2_grpc
from swarmd.proto.clock import Clock
from swarmd.proto.errors import Denied, Invalid, Unavailable
from swarmd.proto.objects_pb2 import NODE_ROLE_MANAGER, Node, Object
from swarmd.proto.tls import peer_identity

BATCH = 100  # objects per message


class ControlService(control_pb2_grpc.ControlServicer):
    def __init__(
        self,
        store: Store,
        election: Election,
        clock: Clock,
        new_id: Callable[[], str],
        logs: LogMerger,
        problem: Callable[[], Awaitable[str]],
    ) -> None:
        """problem: what is wrong with this manager's part of the store, or ''."""
        self._store = store
        self._election = election
        self._clock = clock
        self._new_id = new_id
        self._logs = logs
        self._problem = problem

    async def Get(self, request: pb.GetRequest, context: Any) -> Object:
        self._authorize(context)
        kind = kind_of(request.kind)
        return kind.wrap(resolve(self._store.view(), kind.message, request.ref))

    async def List(self, request: pb.ListRequest, context: Any) -> AsyncIterator[pb.ObjectBatch]:
        self._authorize(context)
        kind = kind_of(request.kind)
        view = self._store.view()
        found = select(view.find(kind.message), request.filters, BY_KIND.get(kind.message, {}), view)
        objects = [kind.wrap(obj) for obj in sorted(found, key=lambda obj: obj.id)]
        for start in range(0, len(objects), BATCH):
            yield pb.ObjectBatch(objects=objects[start : start + BATCH])

    async def Create(self, request: pb.CreateRequest, context: Any) -> pb.WriteResponse:
        self._authorize(context)
        kind, obj = opened(request.object)
        if kind.create is None:
            raise Invalid(f"a {kind.noun} can't be created through this API")
        change = partial(self._run, kind.create, obj, self._new_id(), self._clock.now())
        return await self._written(kind, change)

    async def Update(self, request: pb.UpdateRequest, context: Any) -> pb.WriteResponse:
        self._authorize(context)
        kind, obj = opened(request.object)
        if kind.update is None:
            raise Invalid(f"a {kind.noun} can't be updated")
        return await self._written(kind, partial(self._run, kind.update, obj, request.rollback, self._clock.now()))

    async def Remove(self, request: pb.RemoveRequest, context: Any) -> pb.RemoveResponse:
        self._authorize(context)
        kind = kind_of(request.kind)
        if kind.remove is None:
            raise Invalid(f"a {kind.noun} can't be removed")
        return pb.RemoveResponse(
            id=await self._store.transact(partial(self._run, kind.remove, request.ref, request.force))
        )

    async def RotateJoinToken(self, request: pb.RotateJoinTokenRequest, context: Any) -> Object:
        self._authorize(context)
        cluster = await self._store.transact(lambda tx: clusters.rotate(tx, request.role))
        return Object(cluster=clusters.shown(cluster))

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogBatch]:
        self._authorize(context)
        async for batch in self._logs.merged(request):
            yield batch

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        self._authorize(context)
        status = pb.StatusResponse(problem=await self._problem())
        with suppress(Unavailable):
            status.leader_node_id, status.quorum = await self._election.leader() or "", True
        return status

    async def _written(self, kind: Kind, change: Callable[[Tx], Any]) -> pb.WriteResponse:
        written = await self._store.transact(change)
        # As stored, with its version: what the caller has to give back to update it.
        stored = self._store.view().get(kind.message, written.id)
        return pb.WriteResponse(object=kind.wrap(stored if stored is not None else written))

    @staticmethod
    def _run(change: Callable[..., Any], *arguments: Any) -> Any:
        *given, tx = arguments
        return change(tx, *given)

    def _authorize(self, context: Any) -> None:
        """The certificate says manager, and the node still is one: a demoted node's certificate is valid for months."""
        caller = peer_identity(context)
        node = self._store.view().get(Node, caller.node_id)
        if caller.role != NODE_ROLE_MANAGER or node is None or node.spec.role != NODE_ROLE_MANAGER:
            raise Denied(f"node {caller.node_id} is not a manager: only managers may use the control API")
