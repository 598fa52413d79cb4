from dataclasses import replace

from swarmd.runtime import health
from swarmd.runtime.health import Progress, after_probe
from swarmd.runtime.model import Health, HealthState

PROBE = Health(test=("CMD", "true"), interval=10, retries=3, start_interval=2)


def probed(probe: Health, *results: tuple[float, bool]) -> Progress:
    progress = Progress()
    for now, succeeded in results:
        progress = after_probe(progress, probe, succeeded, now)
    return progress


def test_the_first_success_is_healthy() -> None:
    progress = probed(PROBE, (0.0, False), (0.2, True))
    assert (progress.state, progress.streak, progress.delay) == (HealthState.HEALTHY, 0, 10)


def test_quick_probes_while_starting_are_not_held_against_it() -> None:
    progress = probed(PROBE, *((n / 10, False) for n in range(100)))
    assert (progress.state, progress.streak) == (HealthState.STARTING, 0)
    assert progress.delay == 2


def test_one_failure_per_interval_counts() -> None:
    results = [(10.0, False), (12.0, False), (20.0, False), (30.0, False)]
    assert probed(PROBE, *results[:3]).streak == 2
    assert probed(PROBE, *results).state is HealthState.UNHEALTHY


def test_failures_in_the_start_period_do_not_count() -> None:
    probe = Health(test=("CMD", "true"), interval=1, retries=1, start_period=60)
    assert probed(probe, (59.0, False)).state is HealthState.STARTING
    assert probed(probe, (59.0, False), (60.0, False)).state is HealthState.UNHEALTHY


def test_healthy_until_retries_in_a_row_have_failed() -> None:
    healthy = Progress(state=HealthState.HEALTHY)
    progress = healthy
    for now, succeeded in ((10.0, False), (20.0, False), (30.0, True), (40.0, False), (50.0, False)):
        progress = after_probe(progress, PROBE, succeeded, now)
        assert progress.state is HealthState.HEALTHY
    assert after_probe(progress, PROBE, False, 60.0).state is HealthState.UNHEALTHY


def test_unhealthy_recovers() -> None:
    assert after_probe(Progress(state=HealthState.UNHEALTHY, streak=3), PROBE, True, 99).state is HealthState.HEALTHY


def test_a_restarted_daemon_goes_on_where_the_last_one_was() -> None:
    assert health.resumed(HealthState.HEALTHY, 2, PROBE, 50).streak == 2
    assert health.resumed(HealthState.STARTING, 0, PROBE, 50) == replace(Progress(), counted_at=0.0)


def test_command() -> None:
    assert health.command(Health(test=("CMD-SHELL", "a b"))) == ("/bin/sh", "-c", "a b")
    assert health.command(Health(test=("CMD", "a", "b"))) == ("a", "b")
