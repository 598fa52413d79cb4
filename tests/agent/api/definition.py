"""Docker's own definition of the Engine API, which is not part of this repository.

SWARMD_ENGINE_API names the file; else it is looked for beside the repository.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PLACES = (
    Path(os.environ.get("SWARMD_ENGINE_API", "/nonexistent")),
    Path(__file__).parents[4] / "shared/reference/engine-api-v1.50.yaml",
)
FILE = next((path for path in PLACES if path.is_file()), None)
needed = pytest.mark.skipif(FILE is None, reason="no definition of the Engine API: name it in SWARMD_ENGINE_API")


@functools.cache
def document() -> dict[str, Any]:
    assert FILE is not None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(FILE.read_bytes(), loader)
    return found


def with_nulls() -> dict[str, Any]:
    """The same, but any list or object may be null, and a swappiness: Docker's own answers are so for nothing."""
    found: dict[str, Any] = _with_nulls(document())
    found["definitions"]["Resources"]["properties"]["MemorySwappiness"]["x-nullable"] = True
    return found


def _with_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    extra = {"x-nullable": True} if value.get("type") in ("array", "object") and "in" not in value else {}
    return {key: _with_nulls(item) for key, item in value.items()} | extra


def operations() -> list[tuple[str, str]]:
    """(method, path) of all that it defines; none without the file."""
    if FILE is None:
        return []
    return [(method.upper(), path) for path, item in document()["paths"].items() for method in item if method.islower()]


def properties(name: str) -> dict[str, dict[str, Any]]:
    """The fields of a definition, with those of what it is made from."""
    return dict(_properties(document()["definitions"][name]))


def _properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in schema.get("allOf", ()):
        yield from _properties(resolved(part))
    yield from schema.get("properties", {}).items()


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = document()["definitions"][schema["$ref"].rpartition("/")[2]]
        return resolved(found)
    return schema


def example(schema: dict[str, Any]) -> Any:
    """A value of the schema that asks for something."""
    schema = resolved(schema)
    if choices := [value for value in schema.get("enum", ()) if value]:
        return choices[-1]
    kind = schema.get("type", "object")
    if kind == "array":
        return [example(schema["items"])]
    if kind == "object":
        if isinstance(schema.get("additionalProperties"), dict):
            return {"key": example(schema["additionalProperties"])}
        return {key: example(value) for key, value in _properties(schema)}
    return {"string": "text", "integer": 5, "number": 0.5, "boolean": True}[kind]
