"""Every flag of Docker's commands for one node is there, or refused with a reason that README shows."""

from pathlib import Path

import pytest

from swarmd.swarmctl.commands import BUILDER, CONTAINER, CONTEXT, IMAGE, MANIFEST, SHORT, SYSTEM
from tests.parity.parity import docker, gaps, parser_of

_COMPLETE = [
    "container",
    "image",
    "builder",
    "manifest",
    "system",
    "context",
    *(name for name in SHORT if name in docker()),
]
_REFUSED = {
    "--isolation", "--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops", "--kernel-memory",
    "--disable-content-trust", "--use-api-socket", "--checkpoint", "--checkpoint-dir",
}  # fmt: skip
_REFUSED_BY_BUILD = {"--cgroup-parent", "--security-opt"}
_README = Path(__file__).parents[2] / "README.md"


def test_nothing_is_missing() -> None:
    found = {gap.command: gap.missing for gap in gaps(_COMPLETE)}
    assert {*CONTAINER, *IMAGE, *BUILDER, *MANIFEST, *SYSTEM} - {"dial-stdio", "tree", "du"} <= {
        command.rpartition(" ")[2] for command in found
    }
    assert len(found) >= sum(map(len, (CONTAINER, IMAGE, MANIFEST, SYSTEM, CONTEXT))) - 2
    assert {command: missing for command, missing in found.items() if missing != ()} == {}


def test_what_is_refused_is_a_short_list_that_readme_shows() -> None:
    refused = {flag for gap in gaps(_COMPLETE) for flag in gap.absent}
    assert refused == _REFUSED | _REFUSED_BY_BUILD
    text = _README.read_text().partition("Not there")[2]
    assert [flag for flag in sorted(refused) if f"`{flag}`" not in text] == []


@pytest.mark.parametrize("flag", sorted(_REFUSED - {"--checkpoint", "--checkpoint-dir"}))
def test_a_refused_flag_says_why(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of("run")
    assert parser is not None
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([f"{flag}=1", "demo"])
    assert ended.value.code == 125
    assert f"swarmctl run: {flag} is not available: " in capsys.readouterr().err
