"""What outside bytes look like: arbitrary JSON, valid documents with one place changed, and text of a grammar's words.

SWARMD_FUZZ_EXAMPLES sets how many of each a test tries; a long soak takes a hundred times the normal run.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("SWARMD_FUZZ_EXAMPLES", "80"))

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=2000,  # ms: nothing that is read may take as long
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63, 2**64, 10**400, 0.5, 1e308, float("inf"), float("nan")])
    | st.text(max_size=12)
    | st.sampled_from(["", "²", "٣", "\ud800", "\0", "/", "..", ":", "-1", "9" * 5000, "a" * 300])
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def mutated(document: Any) -> st.SearchStrategy[Any]:
    """The document with some places replaced by another value, or taken out."""
    places = list(_places(document))
    changes = st.lists(st.tuples(st.sampled_from(places), json_values | st.just(_GONE)), min_size=1, max_size=2)
    return changes.map(lambda chosen: _changed(document, chosen))


def words(*known: str, longest: int = 12) -> st.SearchStrategy[str]:
    """Text put together from a grammar's own words and some others."""
    pieces = st.sampled_from(known) | st.text(max_size=3) | st.sampled_from(["²", "\0", " ", "9" * 5000])
    return st.lists(pieces, max_size=longest).map("".join)


_GONE = object()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _places(item, (*path, key))


def _changed(document: Any, changes: Sequence[tuple[tuple[Any, ...], Any]]) -> Any:
    made = [copy.deepcopy(document)]
    for path, value in changes:
        place: Any = made
        keys: tuple[Any, ...] = (0, *path)
        try:
            for key in keys[:-1]:
                place = place[key]
            if value is _GONE:
                del place[keys[-1]]
            else:
                place[keys[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
    return made[0] if made else None
