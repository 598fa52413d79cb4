"""What one run of a transaction's function read and wrote, not yet committed.

A transaction may be laid over another: an item of a batch runs in one of its own, which joins the rest if it fits.
**Invariant:** `expected` has every key that was read by id or written, with its version in the cache at that moment.
Implementations of the store turn `expected`, `writes` and `name_claims` into one atomic comparison and write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from swarmd.manager.store.cache import Cache
from swarmd.manager.store.edit import edited
from swarmd.manager.store.interface import AnyObject, T
from swarmd.manager.store.tables import UNIQUELY_NAMED, Key, Kind, Tables, key_of, kind_name, name_of, version_of
from swarmd.proto.errors import AlreadyExists, Conflict

ENTRY_OVERHEAD = 200  # bytes of a write beside its value: keys, comparisons, framing


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one transaction may hold."""

    operations: int = 128  # etcd's default --max-txn-ops; comparisons count as well
    size: int = 1_400_000  # bytes; etcd's default --max-request-bytes is 1.5 MiB


class Transaction:
    """Satisfies Tx."""

    def __init__(self, cache: Cache, now: Timestamp, under: "Transaction | None" = None) -> None:
        self._cache = cache
        self._now = now
        self._under = under
        self._own = Tables()
        self.expected: dict[Key, int] = {}
        self.writes: dict[Key, AnyObject | None] = {}
        self.size = 0  # bytes, at least what will be sent

    @property
    def revision(self) -> int:
        return self._cache.revision

    # ------------------------------------------------------------ Tx

    def get(self, kind: type[T], id: str) -> T | None:
        key = (cast("Kind", kind), id)
        self._expect(key)
        return cast("T | None", self._current(key))

    def find(
        self, kind: type[T], *, name: str | None = None, service_id: str | None = None, node_id: str | None = None
    ) -> Sequence[T]:
        below = self._under or self._cache
        found = below.find(kind, name=name, service_id=service_id, node_id=node_id)
        if not self.writes:
            return found
        mine = self._own.find(kind, name=name, service_id=service_id, node_id=node_id)
        return [*(obj for obj in found if (cast("Kind", kind), obj.id) not in self.writes), *mine]

    def put(self, obj: AnyObject) -> None:
        key = key_of(obj)
        self._expect(key)
        stored = self._cache.lookup(key)
        if obj.version.index and obj.version.index != version_of(stored):
            raise Conflict(f"{kind_name(key[0])} {obj.id} has changed meanwhile: read it again and repeat the change")
        self._check_name(obj)
        copy = cast("AnyObject", edited(cast("Any", obj)))
        copy.ClearField("version")
        copy.updated_at.CopyFrom(self._now)
        copy.created_at.CopyFrom(self._now if stored is None else stored.created_at)
        self._own.put(copy)
        self._write(key, copy)

    def delete(self, obj: AnyObject) -> None:
        key = key_of(obj)
        self._expect(key)
        self._own.discard(key)
        self._write(key, None)

    def _check_name(self, obj: AnyObject) -> None:
        kind = type(obj)
        if kind in UNIQUELY_NAMED and any(other.id != obj.id for other in self.find(kind, name=name_of(obj))):
            raise AlreadyExists(f"{kind_name(kind)} {name_of(obj)} already exists: choose another name")

    def _expect(self, key: Key) -> None:
        self.expected.setdefault(key, version_of(self._cache.lookup(key)))

    def _current(self, key: Key) -> AnyObject | None:
        if key in self.writes:
            return self.writes[key]
        return self._cache.lookup(key) if self._under is None else self._under._current(key)

    def _write(self, key: Key, new: AnyObject | None) -> None:
        self.writes[key] = new
        self.size += ENTRY_OVERHEAD + (0 if new is None else new.ByteSize())

    # ------------------------------------------------------------ for batches

    def over(self) -> "Transaction":
        """A transaction that sees this one's writes, and changes nothing until it joins it."""
        return Transaction(self._cache, self._now, self)

    def join(self, other: "Transaction") -> None:
        for key, version in other.expected.items():
            self.expected.setdefault(key, version)
        self.size += other.size
        for key, new in other.writes.items():
            self.writes[key] = new
            if new is None:
                self._own.discard(key)
            else:
                self._own.put(new)

    def fits(self, limits: Limits, other: "Transaction | None" = None) -> bool:
        """Whether this, joined with the other, can be one transaction of the store."""
        parts = (self,) if other is None else (self, other)
        return (
            1 + sum(part._operations() for part in parts) <= limits.operations
            and sum(part.size for part in parts) <= limits.size
        )

    def _operations(self) -> int:
        """An upper bound: a named object may take a new name and give up its old one."""
        return len(self.expected) + 2 * sum(kind in UNIQUELY_NAMED for kind, _ in self.writes)

    # ------------------------------------------------------------ for commits

    def name_claims(self) -> dict[tuple[Kind, str], str | None]:
        """The names that change hands: to whom (an id), or None for a name that becomes free."""
        claims: dict[tuple[Kind, str], str | None] = {}
        for key, new in self.writes.items():
            kind, id = key
            if kind not in UNIQUELY_NAMED:
                continue
            old_name, new_name = (None if obj is None else name_of(obj) for obj in (self._cache.lookup(key), new))
            if old_name != new_name:
                if old_name is not None:
                    claims.setdefault((kind, old_name), None)
                if new_name is not None:
                    claims[kind, new_name] = id
        return claims

    def is_free(self, kind: Kind, name: str) -> bool:
        """Whether nobody has the name in the cache, not even somebody who gives it up here."""
        return not self._cache.find(kind, name=name)
