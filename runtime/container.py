"""One container's life: started, followed to its end, restarted by its policy, stopped, adopted after a restart.

`Container.keep` is the one task per started container: it follows a run, releases what the run held, and decides on the
next.  Invariant: a run is released (cgroup, network) before its exit is reported, and reported before the next starts.
The order of `_launch` is the content of this file; what a run holds is found by the container's id alone, so releasing
works the same for a run that this daemon did not start.
"""

import asyncio
import contextlib
import functools
import logging
import os
import select
import signal
import socket
import time
from collections.abc import AsyncIterator

import msgspec

from swarmd.runtime import effective, etc_files, health, joining, launch, probes, restart, spec
from swarmd.runtime.attach import Replay, Streams, Waiting, attach, resize
from swarmd.runtime.cgroups.interface import Stats
from swarmd.runtime.container_files import Place
from swarmd.runtime.errors import Conflict, NotFound, RuntimeFault, StartError
from swarmd.runtime.exec import Command, Exec, ExecResult, begin, execute, start_once
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.images.image import passing
from swarmd.runtime.launch import FindPeer, Host
from swarmd.runtime.model import (
    ContainerConfig,
    ContainerState,
    Event,
    Exit,
    Health,
    HealthState,
    Limits,
    NetworkRequest,
    NetworkState,
    Phase,
    ProbeResult,
)
from swarmd.runtime.network.values import NetworkInfo
from swarmd.runtime.ports import Image, Sandbox
from swarmd.runtime.records import BEFORE_THE_CRASH, Directory, Record, Run
from swarmd.runtime.spawner_client import readable
from swarmd.runtime.stages import files

_LOG = logging.getLogger(__name__)
_PROBE_OUTPUT, _PROBES_KEPT = 4096, 5
_WHILE_PAUSED = 0.5  # s between looks whether it still is


class Container:
    def __init__(self, directory: Directory, record: Record, host: Host, find_peer: FindPeer) -> None:
        self.directory, self.record, self._host, self._find_peer = directory, record, host, find_peer
        self.removed = False
        self.held = False  # not to be removed at its end, as it is being restarted
        self._changing = asyncio.Lock()  # one start, stop or remove at a time
        self._pidfd = -1
        self._shimfd = -1
        self._idle = asyncio.Event()  # no run is being followed
        self._idle.set()
        self._unwanted = asyncio.Event()  # cuts a back-off short
        self._waiting = Waiting()  # clients attached before the start

    @property
    def state(self) -> ContainerState:
        return self.record.state

    @property
    def id(self) -> str:
        return self.record.state.id

    @property
    def running(self) -> bool:
        return self.state.phase is Phase.RUNNING

    def as_peer(self) -> spec.Peer:
        """What another container needs to share namespaces with this one."""
        if not self.running:
            raise Conflict(f"container {self.state.name} is not running: start it first")
        return spec.Peer(self.state.pid, self.directory.path)

    async def make(self) -> None:
        """Put it on the disk; whoever finds it before that waits for it."""
        async with self._changing:
            try:
                await asyncio.to_thread(self.directory.make, self.record)
            except BaseException:
                self.removed = True
                raise

    # Starting

    async def start(self) -> None:
        """Return once the program runs; then `keep` must be run for as long as this object lives."""
        async with self._changing:
            self._must_be()
            if self.running:
                raise Conflict(f"container {self.state.name} is already running")
            self._unwanted.clear()
            self._observe(False, restart_count=0)  # what its policy did is over: the user starts it
            await self._launch()

    async def _launch(self) -> None:
        self.directory.forget_run()
        self._idle.clear()
        # What a host that goes down must not forget of a start is put on its disk while the start goes on.
        self.record = msgspec.structs.replace(
            self.record, version=self.record.version + 1, boot=files.boot_id(), begun=time.time_ns()
        )
        syncing = asyncio.create_task(asyncio.to_thread(self.directory.save, self.record, True))
        try:
            try:
                run = await self._spawn()
            finally:
                await asyncio.shield(syncing)
        except BaseException as error:
            await asyncio.shield(self._abandon(error))
            raise
        self._hold(run)
        # Not saved: to `adopt`, a start that was begun and run.json say the same.
        self._now(True, phase=Phase.RUNNING, pid=run.pid, started=run.started, exit=None, restarting=False)
        self._publish("start")
        for connection, streams in self._waiting.take():  # they came while it started
            with contextlib.suppress(Conflict):
                await attach(self.directory.path, connection, streams)

    async def _spawn(self) -> Run:
        """Acquire what a run holds, and run it; what the caller finds acquired after an error it releases."""
        sandbox, request = await launch.prepare(self.state, self.directory.path, self._host, self._find_peer)
        probe = effective.health(self.state.config, self._host.images.get(self.state.image_id))
        self._observe(
            False,
            networks=sandbox.networks,
            ports=sandbox.ports,
            health=HealthState.STARTING if probe else HealthState.NONE,
            health_failing_streak=0,
            health_log=(),
        )
        for network in sandbox.networks:
            self._publish_network("connect", network)
        with contextlib.ExitStack() as handed_over:
            clients = self._waiting.take()
            for connection, _ in clients:
                handed_over.enter_context(connection)
            wants = [streams.as_request() for _, streams in clients]
            fds = [connection.fileno() for connection, _ in clients]
            answer = await self._host.spawner.ask({**request, "clients": wants}, fds)
        return msgspec.convert(answer, Run)

    async def _abandon(self, error: BaseException) -> None:
        """Release what a start that failed had acquired, and record why it failed."""
        self._waiting.close()
        await self._release()
        code = error.exit_code if isinstance(error, StartError) else 125
        ended = Exit(code=code, at=time.time_ns(), error=self._why_not(error))
        for network in self.state.networks:
            self._publish_network("disconnect", network)
        over = {"restarting": False, "networks": (), "ports": (), "health": HealthState.NONE}
        self._observe(True, phase=Phase.EXITED, pid=0, exit=ended, **over)
        self.directory.forget_run()
        self._idle.set()

    def _why_not(self, error: BaseException) -> str:
        if isinstance(error, OSError) and error.errno in files.FULL:
            return f"start: the disk of {self.directory.path} is full: free space there and start it again"
        return str(error)

    def _hold(self, run: Run) -> None:
        """Open what tells the end of a run, and make sure that the pids still mean what they meant."""
        with contextlib.suppress(ProcessLookupError):
            self._shimfd = os.pidfd_open(run.shim)
            if files.start_time(run.shim) != run.shim_start:
                os.close(self._shimfd)
                self._shimfd = -1
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(run.pid)
            if files.start_time(run.pid) != run.pid_start:
                os.close(self._pidfd)
                self._pidfd = -1

    # Following

    async def adopt(self) -> bool:
        """Take over after a restart of the daemon; True if there is something to `keep`.

        A run that ended meanwhile is concluded here, so that nobody ever sees it running.
        """
        if self.record.boot not in ("", files.boot_id()):
            # The host went down before what became of a start was on its disk: it may have been told that it runs.
            self._save(True, True, phase=Phase.RUNNING, pid=0, started=self.record.begun, exit=None)
        run = self.directory.run() or (BEFORE_THE_CRASH if self.running else None)
        if run and run.pid and self.state.exit and run.started == self.state.started:
            self.directory.forget_run()  # it was concluded; only this was still to be done
            run = None
        if run is not None:
            self._idle.clear()
            if run.alive and run.pid:
                self._hold(run)
                wanted = self.record.wanted or not self.running  # not when its stop had begun
                runs = {"phase": Phase.RUNNING, "pid": run.pid, "started": run.started, "exit": None}
                self._save(True, wanted, restarting=False, **runs)
                await self._adopt_pause()
                return True
            if not run.pid and self.directory.exit() is None and not self.running:
                # The daemon ended while this was starting: nobody was told of a start, so there is none.
                if run.alive:
                    os.kill(run.shim, signal.SIGKILL)
                await self._abandon(StartError("start: swarmd ended before the program ran; start it again"))
            else:
                if run.pid and not self.running:  # its start was not recorded any more
                    self._save(False, True, started=run.started)
                await self._conclude()
        if self.record.boot:  # a start that came to nothing
            self._save(True, self.record.wanted, phase=self.state.phase)
        policy = self.state.config.restart
        if restart.wanted_at_boot(policy, self.record.wanted, bool(self.state.started)):
            self._want(True)
        self._observe(False, restarting=False)
        return self._restart_wanted()

    async def _adopt_pause(self) -> None:
        """The daemon may have ended between doing it and writing that down."""
        cgroup = self._host.cgroups.load(self.id)
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(cgroup.freeze if self.state.paused else cgroup.thaw)

    async def keep(self, running: bool) -> None:
        """Follow this run and those that its restart policy adds; returns when none is to follow.

        running: as it was when this was asked for; without, the first run is one that the policy adds, at once.
        """
        at_boot = not running
        pause = restart.FIRST_PAUSE if running else 0.0
        while True:
            if running:
                began = self.state.started
                await self._follow()
                run = (self.state.exit.at - began) / 1e9 if self.state.exit else 0.0
                pause = restart.FIRST_PAUSE if run > restart.LONG_RUN else pause
            if not self._restart_wanted():
                return
            self._observe(False, restarting=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._unwanted.wait(), pause)
            pause = restart.next_pause(pause)
            async with self._changing:
                if self.removed:
                    return
                if self.running or not self._restart_wanted():
                    self._observe(False, restarting=False)
                    return
                self._observe(False, restart_count=0 if at_boot else self.state.restart_count + 1)
                at_boot = running = False
                with contextlib.suppress(Exception):  # recorded as this run's exit
                    await self._launch()
                    running = True

    def _restart_wanted(self) -> bool:
        state = self.state
        wanted = self.record.wanted and not self.removed
        return restart.wanted(state.config.restart, wanted, state.restart_count, state.exit)

    async def _follow(self) -> None:
        """Wait for the end of the run that is going on, release what it held, and report it."""
        async with asyncio.TaskGroup() as group:
            probe = self._probe()
            probing = group.create_task(self._watch_health(probe)) if probe else None
            if self._shimfd >= 0:
                await readable(self._shimfd)
            if probing:
                probing.cancel()
        await self._conclude()

    async def _conclude(self) -> None:
        """Release what a run that has ended held, and report how it ended."""
        run, ended = self.directory.run() or BEFORE_THE_CRASH, self.directory.exit()
        try:
            await self._release()
        except (OSError, RuntimeFault) as error:
            # The exit is known and others wait for it; removing the container releases again, and tells the user.
            _LOG.error("container %s has ended, but holds on to the host: %s", self.id, error)
        phase = Phase.EXITED if ended else Phase.DEAD
        if ended is None and run.boot != files.boot_id():
            phase = Phase.EXITED
            ended = Exit(code=137, at=time.time_ns(), error="the host went down while it ran")
        elif ended is None:
            why = "its shim was killed, so how the program ended is not known; what was left of it has been killed"
            ended = Exit(code=137, at=time.time_ns(), error=why)
        for network in self.state.networks:
            self._publish_network("disconnect", network)
        self._observe(True, phase=phase, pid=0, exit=ended, networks=(), ports=(), paused=False)
        self.directory.forget_run()
        if ended.oom_killed:
            self._publish("oom")
        ran = max(0, ended.at - self.state.started) // 10**9
        self._publish("die", exitCode=str(ended.code), execDuration=str(ran))
        self._idle.set()

    async def _release(self) -> None:
        """Kill what is left and give back what a run held; in reverse, by id alone, and again without harm."""
        for fd in (self._pidfd, self._shimfd):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._shimfd = -1
        await launch.release(self.id, self._host)

    # Ending

    async def stop(self, timeout: float | None, number: int = 0) -> None:
        """number: the signal to ask with, 0 for the configured one; timeout: seconds until SIGKILL, negative: never."""
        self._want(False)
        async with self._changing:
            self._want(False)  # again: a start that was under way is over now
            if not self.running:
                self._observe(False, restarting=False)
                return
            image = self._image()
            grace = self.state.config.stop_timeout if timeout is None else timeout
            asked = number or effective.stop_signal(self.state.config, image)
            self._publish("kill", signal=str(int(asked)))
            if asked == signal.SIGKILL:
                await self._kill_all()
                await self._idle.wait()
            else:
                self._signal(asked)
            if self.state.paused:
                await self._thaw()  # else it would not hear
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), None if grace < 0 else grace)
            if not self._idle.is_set():
                self._publish("kill", signal=str(int(signal.SIGKILL)))
                await self._kill_all()
                await self._idle.wait()
            self._publish("stop")

    async def kill(self, number: int) -> None:
        if not self.running:
            raise Conflict(f"container {self.state.name} is not running")
        self._publish("kill", signal=str(number))
        if number == signal.SIGKILL:
            self._want(False)
            await self._kill_all()
        else:
            self._signal(number)

    async def pause(self) -> None:
        async with self._changing:
            self._must_run()
            await asyncio.to_thread(self._host.cgroups.load(self.id).freeze)
            self._observe(False, paused=True)
            self._publish("pause")

    async def unpause(self) -> None:
        async with self._changing:
            if not self.state.paused:
                raise Conflict(f"container {self.state.name} is not paused")
            await self._thaw()
            self._publish("unpause")

    async def _thaw(self) -> None:
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(self._host.cgroups.load(self.id).thaw)
        self._observe(False, paused=False)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)

    async def _kill_all(self) -> None:
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(self._host.cgroups.load(self.id).kill)

    async def wait(self) -> Exit:
        await self._idle.wait()
        if self.state.exit is None:
            raise Conflict(f"container {self.state.name} has not been started")
        return self.state.exit

    async def remove(self, force: bool) -> None:
        await self._end(force)  # at once, whatever a stop that is under way waits for
        async with self._changing:
            if self.removed:
                return
            await self._end(force)  # again: a start may have been under way
            await self._idle.wait()
            self._want(False)
            self.removed = True
            self._waiting.close()
            await self._release()
            await asyncio.to_thread(self.directory.remove)
            self._publish("destroy")

    async def _end(self, force: bool) -> None:
        if self._idle.is_set() and not self.state.restarting:
            return
        if not force:
            doing = "being restarted" if self.state.restarting else "running"
            raise Conflict(f"container {self.state.name} is {doing}: stop it first, or force its removal")
        self._want(False)
        await self._kill_all()

    # Changing

    async def rename(self, name: str) -> None:
        async with self._changing:
            old = self.state.name
            if self.running:
                self._host.networks.rename(self.id, name)
            self._change(name=name)
            self._publish("rename", oldName=f"/{old}")

    async def connect(self, request: NetworkRequest) -> None:
        """Add a network: at once where it runs, and at every start to come."""
        async with self._changing:
            self._must_be()
            networks = self._host.networks
            config = joining.with_network(self.state.name, self.state.config, request, networks.inspect)
            if self.running:
                self._joined(await networks.connect(self.id, config.networks[-1], config), config)
                self._publish_network("connect", self.state.networks[-1])
            self._change(config=config)

    async def disconnect(self, network: NetworkInfo) -> None:
        async with self._changing:
            self._must_be()
            networks = self._host.networks
            config = joining.without_network(self.state.name, self.state.config, network, networks.inspect)
            gone = [one for one in self.state.networks if one.id == network.id]
            if self.running:
                self._joined(await networks.disconnect(self.id, network.id, config), config)
            self._change(config=config)
            for one in gone:
                self._publish_network("disconnect", one)

    def _joined(self, sandbox: Sandbox, config: ContainerConfig) -> None:
        """Say what networks it has now, to it too: its resolvers are addresses of its networks."""
        for name in ("hosts", "resolv.conf"):
            content = etc_files.contents(self.id, config, sandbox)[name]
            (self.directory.path / name).write_bytes(content)  # in place, as it is mounted in the container
        self._observe(True, networks=sandbox.networks)

    def _must_be(self) -> None:
        if self.removed:
            raise NotFound(f"container {self.state.name} has been removed")

    async def update(self, limits: Limits, policy: str) -> None:
        """Set other limits, at once where it runs, and another restart policy."""
        async with self._changing:
            self._must_be()
            if self.running:
                cgroup = self._host.cgroups.load(self.id)
                try:
                    await asyncio.to_thread(cgroup.update, limits)
                except BaseException:
                    await asyncio.to_thread(cgroup.update, self.state.config.limits)  # all of it or nothing
                    raise
            config = msgspec.structs.replace(self.state.config, limits=limits, restart=policy)
            self._change(config=config)
            self._publish("update")

    def stats(self) -> Stats:
        """What its cgroup measures. Raises Conflict when it does not run."""
        if not self.running:
            raise Conflict(f"container {self.state.name} is not running")
        return self._host.cgroups.load(self.id).stats()

    def pids(self) -> list[int]:
        self._must_run(paused=True)
        return self._host.cgroups.load(self.id).pids()

    def place(self) -> Place:
        """Where its files are, for `container_files`."""
        layers = self._host.images.get(self.state.image_id).layers
        return Place(self.state, self.directory.path, layers, self._pidfd if self.running else -1)

    @contextlib.asynccontextmanager
    async def place_to_write(self) -> AsyncIterator[Place]:
        """The same, and one that does not run is neither started nor removed meanwhile: it would be mounted twice."""
        async with contextlib.AsyncExitStack() as held:
            if not self.running:
                await held.enter_async_context(self._changing)
                self._must_be()
                if self.running:  # started before its turn came
                    await held.aclose()
            yield self.place()

    # Inside

    async def attach(self, connection: socket.socket, streams: Streams, replay: Replay | None = None) -> None:
        """Hand over a client's connection; before the start it waits for that."""
        self._publish("attach")
        if self.running:
            await attach(self.directory.path, connection, streams, replay)
            return
        try:
            if replay:
                await replay(0)
            self._waiting.add(connection, streams)
        except BaseException:
            connection.close()
            raise

    async def resize(self, height: int, width: int) -> None:
        self._must_run()
        await resize(self.directory.path, height, width)
        self._publish("resize", height=str(height), width=str(width))

    async def exec(self, command: Command, timeout: float | None = None) -> ExecResult:
        self._must_run()
        return await execute(self._host.spawner, self.directory.path, self._pidfd, command, timeout=timeout)

    def exec_create(self, command: Command, streams: Streams) -> Exec:
        self._must_run()
        made = Exec(self.id, command, streams)
        self._publish(f"exec_create: {' '.join(command.command)}", execID=made.id)
        return made

    def check_exec(self, made: Exec) -> None:
        """Refuse what can't be started, while there still is an answer to refuse it with."""
        self._must_run()
        start_once(made)

    async def exec_start(self, made: Exec, connection: socket.socket | None, size: tuple[int, int]) -> None:
        """Return once the program runs; then `exec_keep` must be run."""
        command = msgspec.structs.replace(made.command, size=size) if any(size) else made.command
        self._publish(f"exec_start: {' '.join(command.command)}", execID=made.id)
        try:
            made.running = await begin(
                self._host.spawner, self.directory.path, self._pidfd, command, connection, made.streams
            )
        except StartError as error:
            made.failed = error.exit_code
            raise

    async def exec_keep(self, made: Exec) -> None:
        if made.running:
            await made.running.keep()
            self._publish("exec_die", execID=made.id, exitCode=str(made.exit_code))

    def _must_run(self, paused: bool = False) -> None:
        """paused: one that is paused will do."""
        if self.running and self.state.paused and not paused:
            raise Conflict(f"container {self.state.name} is paused: unpause it first")
        if not self.running or self._pidfd < 0:
            raise Conflict(f"container {self.state.name} is not running")

    def _probe(self) -> Health | None:
        if not self.running:
            return None
        return effective.health(self.state.config, self._image())

    def _image(self) -> Image:
        """One that says nothing where there is none any more: of a build that was cut off, or damaged on the disk."""
        try:
            return self._host.images.get(self.state.image_id)
        except NotFound:
            return passing(ImageConfig(), ())

    async def _watch_health(self, probe: Health) -> None:
        began = self.state.started
        progress = health.resumed(self.state.health, self.state.health_failing_streak, probe, _since(began))
        delay = 0.0
        while True:
            await asyncio.sleep(delay)
            if self.state.paused:  # it can't answer, which is no failure of its own
                delay = min(_WHILE_PAUSED, probe.interval)
                continue
            result = await self._run_probe(probe)
            if self._unwanted.is_set() or self._has_ended():
                return  # what it met was the end, and is no finding
            if self.state.paused:
                continue
            progress = health.after_probe(progress, probe, result.exit_code == 0, _since(began))
            delay = progress.delay
            changed = progress.state is not self.state.health
            kept = (*self.state.health_log, result)[-_PROBES_KEPT:]
            self._observe(changed, health=progress.state, health_failing_streak=progress.streak, health_log=kept)
            if changed:
                self._publish(f"health_status: {progress.state}")

    def _has_ended(self) -> bool:
        """Whether the program is gone, which the shim may not have told yet."""
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def _run_probe(self, probe: Health) -> ProbeResult:
        start = time.time_ns()
        try:
            code, output = await self._probed(probe)
        except TimeoutError:
            code, output = -1, f"health check timed out after {probe.timeout:g} s"
        except StartError as error:
            code, output = error.exit_code, str(error)
        except (OSError, RuntimeFault) as error:  # it has ended or been paused meanwhile, or the host can't
            code, output = -1, str(error)
        return ProbeResult(start=start, end=time.time_ns(), exit_code=code, output=output[:_PROBE_OUTPUT])

    async def _probed(self, probe: Health) -> tuple[int, str]:
        if probe.test[0] in probes.KINDS:
            addresses = [network.address.partition("/")[0] for network in self.state.networks if network.address]
            inside = functools.partial(self._host.networks.socket_inside, self._pidfd)
            return await probes.run(probe.test, probe.timeout, inside, addresses)
        result = await self.exec(Command(command=health.command(probe)), timeout=probe.timeout)
        return result.exit_code, (result.stdout + result.stderr)[:_PROBE_OUTPUT].decode(errors="replace")

    # State

    def _want(self, wanted: bool) -> None:
        if not wanted:
            self._unwanted.set()
        if self.record.wanted != wanted:
            self._save(True, wanted)

    def _observe(self, durable: bool, /, **changes: object) -> None:
        if durable or any(getattr(self.state, name) != value for name, value in changes.items()):
            self._save(durable, self.record.wanted, **changes)

    def _save(self, durable: bool, wanted: bool, /, **changes: object) -> None:
        self._now(wanted, **changes)
        try:
            self.directory.save(self.record, durable)
        except OSError as error:
            if error.errno not in files.FULL:
                raise
            # It is so all the same, and with the next save it is said: a full disk must not keep a stop from ending.
            _LOG.error("container %s: its state can't be saved, the disk of %s is full", self.id, self.directory.path)

    def _now(self, wanted: bool, /, **changes: object) -> None:
        state = msgspec.structs.replace(self.state, **changes)
        record = msgspec.structs.replace(self.record, state=state, wanted=wanted, version=self.record.version + 1)
        # Either is the outcome of a start that was under way.
        over = "phase" in changes or wanted != self.record.wanted
        self.record = msgspec.structs.replace(record, boot="", begun=0) if over else record

    def _change(self, **changes: object) -> None:
        """What a user wants otherwise from now on: saved, or not so."""
        state = msgspec.structs.replace(self.state, **changes)
        record = msgspec.structs.replace(self.record, state=state, version=self.record.version + 1)
        self.directory.save(record, True)
        self.record = record

    def attributes(self) -> dict[str, str]:
        """What every event of it tells."""
        config = self.state.config
        return {**self._image_labels, **config.labels, "image": config.image, "name": self.state.name}

    @functools.cached_property
    def _image_labels(self) -> dict[str, str]:
        return self._image().config.labels

    def _publish(self, action: str, /, **attributes: str) -> None:
        details = {**self.attributes(), **attributes}
        event = Event(type="container", action=action, id=self.id, at=time.time_ns(), attributes=details)
        self._host.events.publish(event)

    def _publish_network(self, action: str, network: NetworkState) -> None:
        details = {"container": self.id, "name": network.network, "type": network.driver}
        event = Event(type="network", action=action, id=network.id, at=time.time_ns(), attributes=details)
        self._host.events.publish(event)


def _since(at: int) -> float:
    return (time.time_ns() - at) / 1e9
