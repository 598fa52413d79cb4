"""The cluster's state as the manager's parts see it.

A store is a cache of all objects that follows etcd.  Reads come from the cache;
a transaction is a plain function over it, committed only if what it read by id
or wrote is unchanged in etcd, and run again otherwise.  Scans (`find`) are not
part of that check: loops are level-triggered, so a stale scan costs one pass.

Objects are protobuf messages and read-only: `edited(obj)` gives a copy to edit.
The implementations are `memory.py` and `etcd.py`; both pass tests/contracts/.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from swarmd.proto.objects_pb2 import Cluster, Config, Holdings, Network, Node, Secret, Service, Task, Volume

AnyObject = Cluster | Node | Service | Task | Network | Secret | Config | Volume | Holdings
T = TypeVar("T", bound=AnyObject)
R = TypeVar("R")
I = TypeVar("I")  # noqa: E741


class View(Protocol):
    """Everything as of one revision.  Valid until the next await: copy out what must live longer."""

    @property
    def revision(self) -> int: ...

    def get(self, kind: type[T], id: str) -> T | None: ...

    def find(
        self,
        kind: type[T],
        *,
        name: str | None = None,
        service_id: str | None = None,
        node_id: str | None = None,
    ) -> Sequence[T]:
        """All objects of a kind, or those an index names.

        name: spec.name (Node: description.hostname).  service_id, node_id: tasks.
        At most one index per call; each is O(size of the answer).
        """
        ...


class Tx(View, Protocol):
    """A view that also sees its own writes."""

    def put(self, obj: AnyObject) -> None:
        """Create or replace.  Sets updated_at (and created_at); the version is set on commit.

        Raises AlreadyExists if another service, network, secret, config or volume has the name.
        Raises Conflict if obj.version is set and is not the stored one.
        """
        ...

    def delete(self, obj: AnyObject) -> None: ...


@dataclass(frozen=True, slots=True)
class Changed:
    """One object before and after; old is None when created, new is None when deleted."""

    old: AnyObject | None
    new: AnyObject | None

    @property
    def obj(self) -> AnyObject:
        obj = self.new if self.new is not None else self.old
        assert obj is not None
        return obj


@dataclass(frozen=True, slots=True)
class Commit:
    """The changes of one or more consecutive revisions, in order.

    `resynced`: the watch had to list again; changes are then the difference between before and now.
    """

    revision: int
    changes: tuple[Changed, ...]
    resynced: bool = False


class Store(Protocol):
    def view(self) -> View: ...

    def view_and_watch(self) -> AbstractAsyncContextManager[tuple[View, AsyncIterator[Commit]]]:
        """A view, and every commit after it.  A slow reader gets commits merged, never lost."""
        ...

    async def transact(self, fn: Callable[[Tx], R]) -> R:
        """Run fn until it commits unhindered; return its value.  All of fn's writes, or none.

        fn may run many times: it must not await or keep state.  Nothing is sent when fn writes nothing.
        When it returns, this store's view holds the writes.
        Raises what fn raises; Unavailable (no quorum within the deadline; the write may still land);
        LeadershipLost on a fenced store; Invalid when fn writes more than one transaction can hold.
        """
        ...

    async def batch(self, items: Iterable[I], fn: Callable[[Tx, I], None]) -> None:
        """Apply fn to each item, as many per transaction as the limits allow.  Not atomic as a whole."""
        ...

    def fenced(self, fence: "Fence") -> "Store":
        """This store, its writes valid only while the fence's key exists as it was created."""
        ...


@dataclass(frozen=True, slots=True)
class Fence:
    """A leader's key: a write of its leader compares the create revision in the same transaction."""

    key: str
    create_revision: int


class Election(Protocol):
    """Implemented beside each store."""

    def campaign(self, candidate: str) -> AbstractAsyncContextManager["Leadership"]:
        """Enter once `candidate` (a node id) leads; leaving resigns."""
        ...

    async def leader(self) -> str | None:
        """The candidate that leads now."""
        ...


class Leadership(Protocol):
    @property
    def fence(self) -> Fence: ...

    async def lost(self) -> None:
        """Return when leadership is, or may be, lost."""
        ...


class LeadershipLost(Exception):
    """Another manager leads: everything in the leader's scope must stop."""
