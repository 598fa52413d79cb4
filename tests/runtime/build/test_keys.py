"""Keys of what is copied: the same on every host and in every version, for they are in images and caches."""

import hashlib
import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmd.runtime.build.trees import Choice, Entry, Placed, Tree, choose, digest, read_list, write_list

FILE = Entry("a/f", "f", 0o644, 0, 0, 3, 5, hashlib.sha256(b"abc").hexdigest(), "", 512)
LINK = Entry("a/\u00fc\udcff", "l", 0o777, 0, 0, 0, 5, "", 'to "x"', 0)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\udc80\udcff"), max_size=20)
entries = st.builds(
    Entry,
    texts,
    st.sampled_from("fdlp"),
    *(st.integers(0, 0o7777),) * 3,
    st.integers(0, 2**40),
    st.integers(-(2**70), 2**70),
    st.sampled_from(["", FILE.digest]),
    texts,
    st.integers(0, 2**40),
)


def test_the_key_of_some_files_is_what_it_has_always_been() -> None:
    placed = choose(Tree("t", [Entry("a", "d", 0o755, 0, 0, 0, 5, "", "", 0), FILE, LINK], {}), Choice(("a",), "/b"))
    assert [one.place for one in placed] == ["b", "b/f", "b/\u00fc\udcff"]
    assert digest(placed) == "7c13aba17c2a1e39457f744487ac6ab8fc6bff165236564811cf020bec610c5a"


@given(st.lists(st.builds(Placed, texts, st.booleans(), entries), max_size=5, unique_by=lambda one: one.place))
def test_a_key_is_of_names_modes_owners_contents_and_links(placed: list[Placed]) -> None:
    content = hashlib.sha256()
    for place, into, one in sorted(placed, key=lambda one: one.place):
        fields = (place, into, one.kind, one.mode, one.uid, one.gid, one.digest, one.link)
        content.update(json.dumps(fields).encode())
    assert digest(placed) == content.hexdigest()
    later = [Placed(place, into, one._replace(mtime=one.mtime + 1, offset=7)) for place, into, one in placed]
    assert digest(reversed(later)) == digest(placed)


@given(st.lists(entries, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_hold_any_name(tmp_path: Path, found: list[Entry]) -> None:
    write_list(tmp_path / "list", [Placed(one.path, False, one) for one in found])
    lines = [json.loads(line) for line in (tmp_path / "list").read_bytes().splitlines()]
    (tmp_path / "list").write_bytes(b"".join(json.dumps(entry).encode() + b"\n" for _, _, *entry in lines))
    assert read_list(tmp_path / "list") == found
