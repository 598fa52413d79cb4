"""Names for containers that were given none: two words, easy to say and to type."""

import secrets
from collections.abc import Container

_FIRST = (
    *("amber", "brave", "bright", "calm", "clever", "cosy", "crisp", "eager", "early", "fair", "fleet", "fond"),
    *("gentle", "glad", "golden", "green", "happy", "hardy", "keen", "kind", "light", "lively", "lucky", "mellow"),
    *("merry", "mild", "neat", "noble", "plain", "proud", "quick", "quiet", "rapid", "round", "sharp", "shy"),
    *("silent", "silver", "smooth", "sober", "stout", "sunny", "swift", "tidy", "warm", "wild", "wise", "young"),
)
_SECOND = (
    *("badger", "beaver", "bee", "bison", "crane", "crow", "cub", "deer", "dove", "eagle", "falcon", "ferret"),
    *("finch", "fox", "gannet", "goose", "hare", "hawk", "heron", "ibis", "jay", "kite", "lark", "lemur"),
    *("lynx", "magpie", "marten", "mole", "moth", "newt", "otter", "owl", "pike", "plover", "puffin", "quail"),
    *("raven", "robin", "seal", "shrew", "snipe", "stork", "swallow", "swan", "tern", "thrush", "vole", "wren"),
)


def unused(taken: Container[str]) -> str:
    """A name that none of these has."""
    while True:
        name = f"{secrets.choice(_FIRST)}_{secrets.choice(_SECOND)}"
        if name not in taken:
            return name
        if (longer := f"{name}{secrets.randbelow(1000)}") not in taken:
            return longer
