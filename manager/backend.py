"""The store that this manager uses: an etcd member of its own, and a client of it."""

from dataclasses import dataclass

from swarmd.manager.roles import Members
from swarmd.manager.store.interface import Election, Store


@dataclass(frozen=True, slots=True)
class Backend:
    store: Store
    election: Election
    members: Members
    member_id: int
