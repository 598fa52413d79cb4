"""Copies to edit: a message is read-only once it has left its transaction."""

from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def edited(message: M) -> M:
    """Return a copy that may be changed and put."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
