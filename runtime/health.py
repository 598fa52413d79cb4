"""Decides what a probe's result means, and when the next probe is due; the engine runs them.

While a container is starting, probes come quickly, so that it counts as healthy within moments of being so.  A failure
is held against it only after its start period and at most once per interval: the quick probes can make it healthy
sooner, never unhealthy sooner.
"""

from dataclasses import dataclass, replace

from swarmd.runtime.model import Health, HealthState

_FIRST_DELAY = 0.1
_FACTOR = 1.6


@dataclass(frozen=True, slots=True)
class Progress:
    """Times in seconds since the program started."""

    state: HealthState = HealthState.STARTING
    streak: int = 0
    counted_at: float = 0.0  # when a failure was last held against it
    delay: float = _FIRST_DELAY


def after_probe(progress: Progress, health: Health, succeeded: bool, now: float) -> Progress:
    quicker = min(progress.delay * _FACTOR, health.start_interval, health.interval)
    if succeeded:
        return replace(progress, state=HealthState.HEALTHY, streak=0, delay=health.interval)
    starting = progress.state is HealthState.STARTING
    delay = quicker if starting else health.interval
    if starting and (now < health.start_period or now - progress.counted_at < health.interval):
        return replace(progress, delay=delay)
    streak = progress.streak + 1
    if streak >= health.retries:
        return Progress(HealthState.UNHEALTHY, streak, now, health.interval)
    return replace(progress, streak=streak, counted_at=now, delay=delay)


def resumed(state: HealthState, streak: int, health: Health, now: float) -> Progress:
    """Go on where a daemon before this one left off."""
    if state in (HealthState.STARTING, HealthState.NONE):
        return Progress(streak=streak, counted_at=now if streak else 0.0)
    return Progress(state, streak, now, health.interval)


def command(health: Health) -> tuple[str, ...]:
    kind, *rest = health.test
    return ("/bin/sh", "-c", *rest) if kind == "CMD-SHELL" else tuple(rest)
