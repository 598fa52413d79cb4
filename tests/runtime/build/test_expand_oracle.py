"""Modifiers of variables are expanded as bash does, which Docker's own builder follows too."""

import os
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.runtime.build.dockerfile import expand

_VALUES = st.text("ab/.", max_size=6)
_PATTERNS = st.text("ab/.*?", min_size=1, max_size=4)
_CUTS = st.builds("${{v{}{}}}".format, st.sampled_from(["#", "##", "%", "%%"]), _PATTERNS)
_SWAPS = st.builds(
    "${{v{}{}/{}}}".format, st.sampled_from(["/", "//"]), st.text("ab.*?", min_size=1, max_size=3), _VALUES
)
_ELSE = st.builds("${{{}{}{}}}".format, st.sampled_from("vue"), st.sampled_from([":-", "-", ":+", "+"]), _VALUES)
_NESTED = st.builds("${{{}:-x{}}}".format, st.sampled_from("ue"), _CUTS)


@settings(max_examples=30, deadline=None)
@given(_VALUES, st.lists(_CUTS | _SWAPS | _ELSE | _NESTED, min_size=40, max_size=40))
def test_words_are_those_of_bash(value: str, words: list[str]) -> None:
    script = "".join(f'printf "%s\\n" "{word}"\n' for word in words)
    env = {"v": value, "e": "", "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, check=True, timeout=20)
    theirs = done.stdout.decode().split("\n")[:-1]
    ours = [expand(word, {"v": value, "e": ""}) for word in words]
    assert dict(zip(words, ours, strict=True)) == dict(zip(words, theirs, strict=True))
