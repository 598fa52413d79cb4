"""A store in a dictionary, for running one control loop against: what is put is committed at once and watched."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager

from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject, Changed, Commit, Fence, I, R, Store, T, Tx, View
from swarmd.proto.objects_pb2 import Task


class SmallStore:
    """Satisfies Store, View and Tx."""

    def __init__(self, *objects: AnyObject) -> None:
        self.revision = 0
        self._objects: dict[tuple[type, str], AnyObject] = {}
        self._watchers: list[asyncio.Queue[Commit]] = []
        for obj in objects:
            self.put(obj)

    # ------------------------------------------------------------ View, Tx

    def get(self, kind: type[T], id: str) -> T | None:
        return self._objects.get((kind, id))  # type: ignore[return-value]

    def find(
        self, kind: type[T], *, name: str | None = None, service_id: str | None = None, node_id: str | None = None
    ) -> Sequence[T]:
        assert name is None
        found = [obj for (of, _), obj in self._objects.items() if of is kind]
        if service_id is not None:
            found = [obj for obj in found if isinstance(obj, Task) and obj.service_id == service_id]
        if node_id is not None:
            found = [obj for obj in found if isinstance(obj, Task) and obj.node_id == node_id]
        return found  # type: ignore[return-value]

    def put(self, obj: AnyObject) -> None:
        stored = edited(obj)
        self.revision += 1
        stored.version.index = self.revision
        key = (type(obj), obj.id)
        old, self._objects[key] = self._objects.get(key), stored
        self._commit(Changed(old, stored))

    def delete(self, obj: AnyObject) -> None:
        self.revision += 1
        self._commit(Changed(self._objects.pop((type(obj), obj.id)), None))

    def _commit(self, change: Changed) -> None:
        for watcher in self._watchers:
            watcher.put_nowait(Commit(self.revision, (change,)))

    # ------------------------------------------------------------ Store

    def view(self) -> View:
        return self

    @asynccontextmanager
    async def view_and_watch(self) -> AsyncIterator[tuple[View, AsyncIterator[Commit]]]:
        queue: asyncio.Queue[Commit] = asyncio.Queue()
        self._watchers.append(queue)

        async def commits() -> AsyncIterator[Commit]:
            while True:
                yield await queue.get()

        yield self, commits()

    async def transact(self, fn: Callable[[Tx], R]) -> R:
        await asyncio.sleep(0)
        return fn(self)

    async def batch(self, items: Iterable[I], fn: Callable[[Tx, I], None]) -> None:
        await asyncio.sleep(0)
        for item in items:
            fn(self, item)

    def fenced(self, fence: Fence) -> Store:
        return self

    # ------------------------------------------------------------ for tests

    def the(self, kind: type[T], id: str) -> T:
        found = self.get(kind, id)
        assert found is not None, f"{kind.__name__} {id} is not in the store"
        return found

    async def settled(self, done: Callable[["SmallStore"], object], seconds: float = 10) -> None:
        """Return when done(store) is true; fail with what there is when that takes too long."""
        try:
            async with asyncio.timeout(seconds):
                while not done(self):  # noqa: ASYNC110 (any await of the loop under test may change it)
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError("\n".join(str(obj) for obj in self._objects.values())) from None


@asynccontextmanager
async def running(loop: Callable[[], Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Run a control loop in the background."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop())
        yield
        task.cancel()
