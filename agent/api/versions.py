"""The versions of the Engine API that are spoken."""

MINIMUM = "1.24"
MAXIMUM = "1.50"


def spoken(version: str) -> tuple[int, int] | None:
    """The version as numbers; None if it is not spoken."""
    parts = version.split(".")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    major, minor = int(parts[0]), int(parts[1])
    return (major, minor) if _numbers(MINIMUM) <= (major, minor) <= _numbers(MAXIMUM) else None


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)
