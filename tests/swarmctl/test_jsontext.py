"""JSON without module `json` is what module `json` makes and reads."""

import json
from typing import Any

import pytest

from swarmd.swarmctl import jsontext

_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**70, 1.5, 1e300, "", "ä\u2028 \"\\\n\x00😀", [], {}, [[], {}, [1, [2]]],
    {"a": {"b": [1, {"c": None}], "d": {}}, "é": "x"},
]  # fmt: skip


@pytest.mark.parametrize("value", _VALUES, ids=repr)
def test_it_is_written_and_read_as_json_does(value: Any) -> None:
    assert jsontext.dumps(value) == json.dumps(value)
    assert jsontext.readable(value) == json.dumps(value, ensure_ascii=False)
    assert jsontext.compact(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert jsontext.indented(value) == json.dumps(value, ensure_ascii=False, indent=4)
    for text in (json.dumps(value), json.dumps(value, indent=2) + "\n", f" {json.dumps(value, ensure_ascii=False)}"):
        assert jsontext.loads(text) == value
        assert jsontext.loads(text.encode()) == value


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", "{} {}", "nul", '{"a"}', '"\n"', b"\xff"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(text)


def test_what_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError, match="set is no JSON"):
        jsontext.dumps({"a": {1}})
