"""When a container is started again by its restart policy, and after how long: pure functions."""

from swarmd.runtime.model import Exit

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0  # s
LONG_RUN = 10.0  # s; after a run this long the next pause is the first again


def wanted(policy: str, user_wants_it: bool, restarts: int, ended: Exit | None) -> bool:
    """After a run, or after a start of the daemon that finds none. policy: as in ContainerConfig."""
    name, _, most = policy.partition(":")
    if not user_wants_it or name == "no":
        return False
    if name == "on-failure":
        return ended is not None and ended.code != 0 and (not most or restarts < int(most))
    return True


def wanted_at_boot(policy: str, user_wants_it: bool, was_started: bool) -> bool:
    """When the daemon starts: `always` means even what the user stopped, `unless-stopped` does not."""
    return user_wants_it or (policy == "always" and was_started)


def next_pause(pause: float) -> float:
    """Seconds until the start after the next, of those until the next."""
    return min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
