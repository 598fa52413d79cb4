"""Reads a JSON object of a request field by field, so that what nobody read can be refused by name.

`close` accepts what asks for nothing of a field that Docker has, and refuses everything else that is left.
"""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from aiohttp import web

from swarmd.proto.codec import asks_for_nothing
from swarmd.proto.errors import Invalid

T = TypeVar("T")


class Fields:
    """with Fields(body) as fields: name = fields.text("Name") ... ; leaving the block refuses what was not read.

    unsupported: names of fields that Docker has, perhaps with the reason why they are refused.
    """

    def __init__(self, value: object, path: str = "", unsupported: Iterable[str] = ()) -> None:
        if not isinstance(value, dict):
            raise Invalid(f"{f'field {path}' if path else 'the body'} must be an object")
        self._left = dict(value)
        self._path = path
        reasons = unsupported if isinstance(unsupported, Mapping) else dict.fromkeys(unsupported, "")
        self._unsupported: Mapping[str, str] = reasons

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self._close()

    def text(self, name: str, default: str = "") -> str:
        return self._take(name, str, "a string", default)

    def number(self, name: str, default: int = 0) -> int:
        return self._take(name, int, "a whole number", default)

    def flag(self, name: str, default: bool = False) -> bool:
        return self._take(name, bool, "true or false", default)

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._take(name, list, "a list of strings", [])
        if not all(isinstance(value, str) for value in values):
            raise Invalid(f"field {self.path(name)} must be a list of strings")
        return tuple(values)

    def numbers(self, name: str) -> tuple[int, ...]:
        values = self._take(name, list, "a list of whole numbers", [])
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise Invalid(f"field {self.path(name)} must be a list of whole numbers")
        return tuple(values)

    def lists(self, name: str) -> list[list[str]]:
        values = self._take(name, list, "a list of lists of strings", [])
        if not all(isinstance(value, list) and all(isinstance(word, str) for word in value) for value in values):
            raise Invalid(f"field {self.path(name)} must be a list of lists of strings")
        return [list(value) for value in values]

    def text_or_texts(self, name: str) -> tuple[str, ...]:
        """Docker takes "sh" for ["sh"]."""
        if isinstance(self._left.get(name), str):
            return (self.text(name),)
        return self.texts(name)

    def mapping(self, name: str) -> dict[str, str]:
        values = self._take(name, dict, "an object of strings", {})
        if not all(isinstance(value, str) for value in values.values()):
            raise Invalid(f"field {self.path(name)} must be an object of strings")
        return dict(values)

    def raw(self, name: str) -> dict[str, Any]:
        """An object whose keys are the user's own; the caller reads it with further Fields."""
        return dict(self._take(name, dict, "an object", {}))

    def part(self, name: str, unsupported: Iterable[str] = ()) -> Self:
        return type(self)(self.raw(name), self.path(name), unsupported)

    def parts(self, name: str, unsupported: Iterable[str] = ()) -> list[Self]:
        values = self._take(name, list, "a list", [])
        return [type(self)(value, f"{self.path(name)}[{i}]", unsupported) for i, value in enumerate(values)]

    def ignore(self, name: str, *harmless: object) -> None:
        """Accept one of these values of a field that we have not, as well as nothing at all."""
        if self._left.get(name) in harmless:
            self._left.pop(name, None)

    def drop(self, name: str) -> None:
        """Accept a field whatever it says: it concerns something else."""
        self._left.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether it is given; null is not."""
        if self._left.get(name) is None:
            self._left.pop(name, None)
        return name in self._left

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _take(self, name: str, kind: type[T], wanted: str, default: T) -> T:
        value = self._left.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Invalid(f"field {self.path(name)} must be {wanted}")
        return value

    def _close(self) -> None:
        for name, value in self._left.items():
            if value is not None and (name not in self._unsupported or not asks_for_nothing(value)):
                if reason := self._unsupported.get(name):
                    raise Invalid(f"field {self.path(name)} is not supported: {reason}")
                raise Invalid(f"unknown or unsupported field {self.path(name)}")


async def body(request: web.Request) -> Any:
    """The JSON of the request; an empty one is null."""
    return parse(await request.read())


def parse(data: bytes) -> Any:
    """Refuses what is only nearly JSON: NaN, and halves of surrogate pairs, which no file or message can hold."""
    if not data.strip():
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise Invalid("the body is not JSON") from None
