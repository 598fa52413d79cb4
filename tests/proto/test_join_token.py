import pytest

from swarmd.proto import join_token
from swarmd.proto.errors import Invalid


def test_a_token_pins_its_root_and_survives_being_written_down() -> None:
    token = join_token.new(b"root one\n")
    read = join_token.parse(f" {token}\n")
    assert read == token
    assert read.pins(b"root one\n")
    assert not read.pins(b"root two\n")
    assert [len(part) for part in str(token).split("-")] == [6, 1, 50, 25]


def test_tokens_of_one_root_differ() -> None:
    assert join_token.new(b"root") != join_token.new(b"root")


@pytest.mark.parametrize("text", ["", "SWMTKN-1-abc-def", "SWMTKN-2-" + "a" * 50 + "-" + "b" * 25, "x" * 84])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="malformed"):
        join_token.parse(text)
