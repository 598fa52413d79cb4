"""Probes one run of a container while it goes on, and says what it finds; `health.py` decides what that means."""

import asyncio
import functools
import time

from swarmd.runtime import health, probes
from swarmd.runtime.announcer import Announcer
from swarmd.runtime.errors import RuntimeFault, StartError
from swarmd.runtime.exec import Command
from swarmd.runtime.handles import Handles
from swarmd.runtime.inside import Inside
from swarmd.runtime.model import Health, ProbeResult
from swarmd.runtime.ports import Networks
from swarmd.runtime.records import Ledger

_OUTPUT, _KEPT = 4096, 5
_WHILE_PAUSED = 0.5  # s between looks whether it still is


class HealthWatch:
    """unwanted: set once the container is being stopped; what a probe meets then is the end, and is no finding."""

    def __init__(
        self,
        ledger: Ledger,
        handles: Handles,
        inside: Inside,
        networks: Networks,
        announcer: Announcer,
        unwanted: asyncio.Event,
    ) -> None:
        self._ledger, self._handles, self._inside = ledger, handles, inside
        self._networks, self._announcer, self._unwanted = networks, announcer, unwanted

    async def run(self, probe: Health) -> None:
        """Return when the container has ended; or be cancelled."""
        state = self._ledger.state
        began = state.started
        progress = health.resumed(state.health, state.health_failing_streak, probe, _since(began))
        delay = 0.0
        while True:
            await asyncio.sleep(delay)
            if self._ledger.state.paused:  # it can't answer, which is no failure of its own
                delay = min(_WHILE_PAUSED, probe.interval)
                continue
            result = await self._probe(probe)
            if self._unwanted.is_set() or self._handles.has_ended():
                return
            if self._ledger.state.paused:
                continue
            progress = health.after_probe(progress, probe, result.exit_code == 0, _since(began))
            delay = progress.delay
            changed = progress.state is not self._ledger.state.health
            kept = (*self._ledger.state.health_log, result)[-_KEPT:]
            self._ledger.observe(changed, health=progress.state, health_failing_streak=progress.streak, health_log=kept)
            if changed:
                self._announcer.publish(f"health_status: {progress.state}")

    async def _probe(self, probe: Health) -> ProbeResult:
        start = time.time_ns()
        try:
            code, output = await self._asked(probe)
        except TimeoutError:
            code, output = -1, f"health check timed out after {probe.timeout:g} s"
        except StartError as error:
            code, output = error.exit_code, str(error)
        except (OSError, RuntimeFault) as error:  # it has ended or been paused meanwhile, or the host can't
            code, output = -1, str(error)
        return ProbeResult(start=start, end=time.time_ns(), exit_code=code, output=output[:_OUTPUT])

    async def _asked(self, probe: Health) -> tuple[int, str]:
        if probe.test[0] in probes.KINDS:
            networks = self._ledger.state.networks
            addresses = [network.address.partition("/")[0] for network in networks if network.address]
            socket_inside = functools.partial(self._networks.socket_inside, self._handles.program)
            return await probes.run(probe.test, probe.timeout, socket_inside, addresses)
        result = await self._inside.exec(Command(command=health.command(probe)), timeout=probe.timeout)
        return result.exit_code, (result.stdout + result.stderr)[:_OUTPUT].decode(errors="replace")


def _since(at: int) -> float:
    return (time.time_ns() - at) / 1e9
