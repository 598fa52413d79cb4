"""Finds the object that a user's word means: an id, then a name, then the beginning of one id."""

from collections.abc import Sequence

from swarmd.manager.store.interface import T, View
from swarmd.proto.errors import Invalid, NotFound
from swarmd.proto.objects_pb2 import Cluster


def resolve(view: View, kind: type[T], ref: str) -> T:
    """Raise NotFound, or Invalid if several objects answer to the word."""
    noun = kind.DESCRIPTOR.name.lower()
    if kind is Cluster:
        return _only(view.find(kind), noun, "")
    if not ref:
        raise Invalid(f"which {noun}? name one")
    found = view.get(kind, ref)
    if found is not None:
        return found
    named = view.find(kind, name=ref)
    return _only(named or [obj for obj in view.find(kind) if obj.id.startswith(ref)], noun, ref)


def _only(found: Sequence[T], noun: str, ref: str) -> T:
    if not found:
        raise NotFound(f"no such {noun}: {ref}" if ref else f"no {noun}")
    if len(found) > 1:
        ids = ", ".join(sorted(obj.id for obj in found)[:5])
        raise Invalid(f"{noun} {ref} is ambiguous: {len(found)} answer to it ({ids}); use a whole id")
    return found[0]
