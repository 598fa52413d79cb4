"""One container's life: started, followed to its end, restarted by its policy, stopped, adopted after a restart.

`Container.keep` is the one task per started container: it follows a run, releases what the run held, and decides on the
next.  Invariant: a run is released (cgroup, network) before its exit is reported, and reported before the next starts;
what it holds is not released while somebody changes it.
The order of `_launch` is the content of this file; what a run holds is found by the container's id alone, so releasing
works the same for a run that this daemon did not start.
"""

import asyncio
import contextlib
import errno
import functools
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import msgspec

from swarmd.runtime import effective, etc_files, joining, launch, restart, spec
from swarmd.runtime.announcer import Announcer
from swarmd.runtime.attach import Streams, attach
from swarmd.runtime.cgroups.interface import Stats
from swarmd.runtime.container_files import Place
from swarmd.runtime.errors import Conflict, NotFound, RuntimeFault, StartError
from swarmd.runtime.finishing import finished
from swarmd.runtime.handles import Handles
from swarmd.runtime.health_watch import HealthWatch
from swarmd.runtime.inside import Inside
from swarmd.runtime.launch import FindPeer, Host
from swarmd.runtime.model import (
    ContainerConfig,
    ContainerState,
    Exit,
    Health,
    HealthState,
    Limits,
    NetworkRequest,
    Phase,
)
from swarmd.runtime.network.values import NetworkInfo
from swarmd.runtime.ports import Sandbox
from swarmd.runtime.records import BEFORE_THE_CRASH, Directory, Ledger, Record, Run
from swarmd.runtime.stages import files

_LOG = logging.getLogger(__name__)


class Container:
    def __init__(
        self,
        directory: Directory,
        record: Record,
        host: Host,
        find_peer: FindPeer,
        forget: "Callable[[Container], None]",
    ) -> None:
        """forget: called once it has been removed, or could not be made."""
        self.directory, self._host, self._find_peer = directory, host, find_peer
        self._forget = functools.partial(forget, self)
        self._ledger = Ledger(directory, record)
        self._handles = Handles()
        self._announcer = Announcer(self._ledger, host)
        self.inside = Inside(self._ledger, self._handles, host.spawner, self._announcer)
        self.removed = False
        self._unwanted = asyncio.Event()  # cuts a back-off short
        self._health = HealthWatch(
            self._ledger, self._handles, self.inside, host.networks, self._announcer, self._unwanted
        )
        self.restarts = 0  # asked for and under way: until they are over its end does not remove it
        self._changing = asyncio.Lock()  # one start, stop or remove at a time
        self._releasing = asyncio.Lock()  # after the other: what a run holds is changed or released, by one at a time
        self._runs = 0  # that this daemon has started
        self._times_started = 0  # by users, each of which brings a keeper of its own
        self._idle = asyncio.Event()  # no run is being followed
        self._idle.set()

    @property
    def record(self) -> Record:
        return self._ledger.record

    @property
    def state(self) -> ContainerState:
        return self._ledger.state

    @property
    def id(self) -> str:
        return self._ledger.state.id

    @property
    def running(self) -> bool:
        return self._ledger.running

    def attributes(self) -> dict[str, str]:
        """What every event of it tells."""
        return self._announcer.attributes()

    def as_peer(self) -> spec.Peer:
        """What another container needs to share namespaces with this one."""
        if not self.running:
            raise Conflict(f"container {self.state.name} is not running: start it first")
        return spec.Peer(self.state.pid, self.directory.path)

    async def make(self) -> None:
        """Put it on the disk; whoever finds it before that waits for it. If not, there is nothing to find any more."""
        async with self._changing:
            try:
                await finished(asyncio.to_thread(self.directory.make, self.record))
            except BaseException:
                if self.directory.path.exists():  # whoever wanted it has gone
                    await finished(asyncio.to_thread(self.directory.remove))
                self._is_gone()
                raise

    def _is_gone(self) -> None:
        self.removed = True
        self.inside.waiting.shut()
        self._forget()
        self._announcer.publish("destroy")

    # Starting

    async def start(self) -> None:
        """Return once the program runs; then `keep` must be run for as long as this object lives."""
        async with self._changing:
            self._must_be()
            if self.running:
                raise Conflict(f"container {self.state.name} is already running")
            self._unwanted.clear()
            self._ledger.observe(False, restart_count=0)  # what its policy did is over: the user starts it
            await self._launch()
            self._times_started += 1

    async def _launch(self) -> None:
        self.directory.forget_run()
        self._idle.clear()
        self._runs += 1
        # What a host that goes down must not forget of a start is put on its disk while the start goes on.
        self._ledger.begin()
        syncing = asyncio.create_task(asyncio.to_thread(self.directory.save, self.record, True))
        try:
            try:
                run = await self._spawn()
            finally:
                await finished(syncing)
            self._handles.open(run)
            while clients := self.inside.waiting.take():  # they came while it started
                await self._hand_over(clients)
        except BaseException as error:
            await finished(self._abandon(error))
            raise
        # From here to its keeper nothing is awaited: one that runs is always followed.
        # Not saved: to `adopt`, a start that was begun and run.json say the same.
        self._ledger.note(True, phase=Phase.RUNNING, pid=run.pid, started=run.started, exit=None, restarting=False)
        self._announcer.publish("start")

    async def _hand_over(self, clients: Sequence[tuple[socket.socket, Streams]]) -> None:
        with contextlib.ExitStack() as left:
            for connection, _ in clients:
                left.enter_context(connection)
            for connection, streams in clients:
                with contextlib.suppress(Conflict):  # it has ended already
                    await attach(self.directory.path, connection, streams)

    async def _spawn(self) -> Run:
        """Acquire what a run holds, and run it; what the caller finds acquired after an error it releases."""
        sandbox, request = await launch.prepare(self.state, self.directory.path, self._host, self._find_peer)
        probe = effective.health(self.state.config, self._host.images.get(self.state.image_id))
        self._ledger.observe(
            False,
            networks=sandbox.networks,
            ports=sandbox.ports,
            health=HealthState.STARTING if probe else HealthState.NONE,
            health_failing_streak=0,
            health_log=(),
        )
        for network in sandbox.networks:
            self._announcer.publish_network("connect", network)
        with contextlib.ExitStack() as handed_over:
            clients = self.inside.waiting.take()
            for connection, _ in clients:
                handed_over.enter_context(connection)
            wants = [streams.as_request() for _, streams in clients]
            fds = [connection.fileno() for connection, _ in clients]
            answer = await self._host.spawner.ask({**request, "clients": wants}, fds)
        return msgspec.convert(answer, Run)

    async def _abandon(self, error: BaseException) -> None:
        """Release what a start that failed had acquired, and record why it failed."""
        self.inside.waiting.close()
        await self._release_or_log()
        code = error.exit_code if isinstance(error, StartError) else 125
        ended = Exit(code=code, at=time.time_ns(), error=self._why_not(error))
        for network in self.state.networks:
            self._announcer.publish_network("disconnect", network)
        over = {"restarting": False, "networks": (), "ports": (), "health": HealthState.NONE}
        self._ledger.observe(True, phase=Phase.EXITED, pid=0, exit=ended, **over)
        self.directory.forget_run()
        self._idle.set()

    def _why_not(self, error: BaseException) -> str:
        if isinstance(error, OSError) and error.errno in files.FULL:
            return f"start: the disk of {self.directory.path} is full: free space there and start it again"
        return str(error)

    # Following

    async def adopt(self) -> bool:
        """Take over after a restart of the daemon; True if there is something to `keep`.

        A run that ended meanwhile is concluded here, so that nobody ever sees it running.
        """
        if self.record.boot not in ("", files.boot_id()):
            # The host went down before what became of a start was on its disk: it may have been told that it runs.
            self._ledger.save(True, True, phase=Phase.RUNNING, pid=0, started=self.record.begun, exit=None)
        run = self.directory.run() or (BEFORE_THE_CRASH if self.running else None)
        if run and run.pid and self.state.exit and run.started == self.state.started:
            self.directory.forget_run()  # it was concluded; only this was still to be done
            run = None
        if run is not None:
            self._idle.clear()
            if run.alive and run.pid:
                self._handles.open(run)
                wanted = self.record.wanted or not self.running  # not when its stop had begun
                runs = {"phase": Phase.RUNNING, "pid": run.pid, "started": run.started, "exit": None}
                self._ledger.save(True, wanted, restarting=False, **runs)
                await self._adopt_pause()
                return True
            if not run.pid and self.directory.exit() is None and not self.running:
                # The daemon ended while this was starting: nobody was told of a start, so there is none.
                if run.alive:
                    with contextlib.suppress(ProcessLookupError):  # it ends by itself
                        os.kill(run.shim, signal.SIGKILL)
                await self._abandon(StartError("start: swarmd ended before the program ran; start it again"))
            else:
                if run.pid and not self.running:  # its start was not recorded any more
                    self._ledger.save(False, True, started=run.started)
                await self._conclude()
        if self.record.boot:  # a start that came to nothing
            self._ledger.save(True, self.record.wanted, phase=self.state.phase)
        policy = self.state.config.restart
        if restart.wanted_at_boot(policy, self.record.wanted, bool(self.state.started)):
            self._want(True)
        self._ledger.observe(False, restarting=False)
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
        times_started = self._times_started
        pause = restart.FIRST_PAUSE if running else 0.0
        while True:
            if running:
                began = self.state.started
                await self._follow()
                run = (self.state.exit.at - began) / 1e9 if self.state.exit else 0.0
                pause = restart.FIRST_PAUSE if run > restart.LONG_RUN else pause
            if not self._restart_wanted():
                return
            self._ledger.observe(False, restarting=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._unwanted.wait(), pause)
            pause = restart.next_pause(pause)
            async with self._changing:
                if self.removed or self._times_started > times_started:  # or it has another keeper by now
                    return
                if self.running or not self._restart_wanted():
                    self._ledger.observe(False, restarting=False)
                    return
                self._ledger.observe(False, restart_count=0 if at_boot else self.state.restart_count + 1)
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
            probe = effective.health(self.state.config, self._host.image_of(self.state)) if self.running else None
            probing = group.create_task(self._watch_health(probe)) if probe else None
            await self._handles.end()
            if probing:
                probing.cancel()
        await self._conclude()

    async def _watch_health(self, probe: Health) -> None:
        try:
            await self._health.run(probe)
        except Exception:  # its end must be seen all the same
            _LOG.exception("container %s is probed no more until it starts again", self.id)

    async def _conclude(self) -> None:
        """Release what a run that has ended held, and report how it ended."""
        try:
            async with self._releasing:
                ended = await self._record_end()
        except Exception:
            self._idle.set()  # others wait for it
            raise
        if ended.oom_killed:
            self._announcer.publish("oom")
        ran = max(0, ended.at - self.state.started) // 10**9
        self._announcer.publish("die", exitCode=str(ended.code), execDuration=str(ran))
        self._idle.set()

    async def _record_end(self) -> Exit:
        run, ended = self.directory.run() or BEFORE_THE_CRASH, self.directory.exit()
        await self._release_or_log()
        phase = Phase.EXITED if ended else Phase.DEAD
        if ended is None and run.boot != files.boot_id():
            phase = Phase.EXITED
            ended = Exit(code=137, at=time.time_ns(), error="the host went down while it ran")
        elif ended is None:
            why = "its shim was killed, so how the program ended is not known; what was left of it has been killed"
            ended = Exit(code=137, at=time.time_ns(), error=why)
        for network in self.state.networks:
            self._announcer.publish_network("disconnect", network)
        self._ledger.observe(True, phase=phase, pid=0, exit=ended, networks=(), ports=(), paused=False)
        self.directory.forget_run()
        return ended

    async def _release_or_log(self) -> None:
        """How a run has ended is known then, and others wait for it."""
        try:
            await self._release()
        except (OSError, RuntimeFault) as error:
            # Removing the container releases again, and tells the user.
            _LOG.error("container %s has ended, but holds on to the host: %s", self.id, error)

    async def _release(self) -> None:
        """Kill what is left and give back what a run held; in reverse, by id alone, and again without harm."""
        self._handles.close()
        await launch.release(self.id, self._host)

    # Ending

    async def stop(self, timeout: float | None, number: int = 0) -> None:
        """number: the signal to ask with, 0 for the configured one; timeout: seconds until SIGKILL, negative: never."""
        self._want(False)
        async with self._changing:
            self._must_be()
            self._want(False)  # again: a start that was under way is over now
            if not self.running:
                self._ledger.observe(False, restarting=False)
                return
            run = self._runs
            asked = number or effective.stop_signal(self.state.config, self._host.image_of(self.state))
            self._announcer.publish("kill", signal=str(int(asked)))
            if asked == signal.SIGKILL:
                await self._kill_all()
            else:
                self._handles.signal(asked)
            await self._thaw()  # else it would not hear
        # Others have their turn meanwhile: how long this takes is up to the user and to the program.
        grace = self.state.config.stop_timeout if timeout is None else timeout
        if asked != signal.SIGKILL and not await self._is_over(run, None if grace < 0 else grace):
            self._announcer.publish("kill", signal=str(int(signal.SIGKILL)))
            await self._kill_all()
        await self._is_over(run, None)
        self._announcer.publish("stop")

    async def _is_over(self, run: int, seconds: float | None) -> bool:
        """Wait for the end of that run, not of one after it; False if it does not come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._runs == run:
                    await self._idle.wait()
        return self._runs != run or self._idle.is_set()

    async def kill(self, number: int) -> None:
        if not self.running:
            raise Conflict(f"container {self.state.name} is not running")
        self._announcer.publish("kill", signal=str(number))
        if number == signal.SIGKILL:
            self._want(False)
            await self._kill_all()
        else:
            self._handles.signal(number)

    def _want(self, wanted: bool) -> None:
        if not wanted:
            self._unwanted.set()
        if self.record.wanted != wanted:
            self._ledger.save(True, wanted)

    async def pause(self) -> None:
        async with self._changing, self._releasing:
            self.inside.must_run()
            if self._unwanted.is_set():  # frozen before they die they never would
                raise Conflict(f"container {self.state.name} is being stopped: start it again to pause it")
            await finished(self._freeze())

    async def _freeze(self) -> None:
        try:
            await asyncio.to_thread(self._host.cgroups.load(self.id).freeze)
        except TimeoutError as error:
            raise Conflict(f"container {self.state.name} can't be paused: {error}") from None
        self._ledger.observe(False, paused=True)
        self._announcer.publish("pause")

    async def unpause(self) -> None:
        async with self._changing:
            if not self.state.paused:
                raise Conflict(f"container {self.state.name} is not paused")
            if await finished(self._thaw()):
                self._announcer.publish("unpause")

    async def _thaw(self) -> bool:
        """False for one that has ended meanwhile."""
        async with self._releasing:
            if self.state.paused:
                await asyncio.to_thread(self._host.cgroups.load(self.id).thaw)
                self._ledger.observe(False, paused=False)
                return True
            return False

    async def _kill_all(self) -> None:
        """All of this run; should it end before its turn comes, not the next one."""
        run = self._runs
        async with self._releasing:
            if self._runs != run or self._idle.is_set():
                return
            try:
                await finished(asyncio.to_thread(self._host.cgroups.load(self.id).kill))
            except NotFound:
                return
            except TimeoutError as error:
                raise Conflict(f"container {self.state.name} can't be killed whole: {error}") from None

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
            await finished(self._give_up())

    async def _give_up(self) -> None:
        await self._release()
        await asyncio.to_thread(self.directory.remove)
        self._is_gone()  # in one step: whoever finds it before will hear of that

    async def _end(self, force: bool) -> None:
        if self._idle.is_set() and not self.state.restarting:
            return
        if not force:
            doing = "being restarted" if self.state.restarting else "running"
            raise Conflict(f"container {self.state.name} is {doing}: stop it first, or force its removal")
        self._want(False)
        await self._kill_all()

    # Changing

    async def rename(self, name: str, check: Callable[[str], None]) -> None:
        """check: raises what is against the name."""
        async with self._changing, self._releasing:
            self._must_be()
            check(name)  # now: until its turn came another may have taken it
            old = self.state.name
            if self.running:
                self._host.networks.rename(self.id, name)
            self._ledger.change(name=name)
            self._announcer.publish("rename", oldName=f"/{old}")

    async def connect(self, request: NetworkRequest) -> None:
        """Add a network: at once where it runs, and at every start to come."""
        async with self._changing, self._releasing:
            self._must_be()
            await finished(self._connect(request))

    async def _connect(self, request: NetworkRequest) -> None:
        networks = self._host.networks
        config = joining.with_network(self.state.name, self.state.config, request, networks.inspect)
        if self.running:
            self._joined(await networks.connect(self.id, config.networks[-1], config), config)
            self._announcer.publish_network("connect", self.state.networks[-1])
        self._ledger.change(config=config)

    async def disconnect(self, network: NetworkInfo) -> None:
        async with self._changing, self._releasing:
            self._must_be()
            await finished(self._disconnect(network))

    async def _disconnect(self, network: NetworkInfo) -> None:
        networks = self._host.networks
        config = joining.without_network(self.state.name, self.state.config, network, networks.inspect)
        gone = [one for one in self.state.networks if one.id == network.id]
        if self.running:
            self._joined(await networks.disconnect(self.id, network.id, config), config)
        self._ledger.change(config=config)
        for one in gone:
            self._announcer.publish_network("disconnect", one)

    def _joined(self, sandbox: Sandbox, config: ContainerConfig) -> None:
        """Say what networks it has now, to it too: its resolvers are addresses of its networks."""
        for name in ("hosts", "resolv.conf"):
            content = etc_files.contents(self.id, config, sandbox)[name]
            (self.directory.path / name).write_bytes(content)  # in place, as it is mounted in the container
        self._ledger.observe(True, networks=sandbox.networks)

    def _must_be(self) -> None:
        if self.removed:
            raise NotFound(f"container {self.state.name} has been removed")

    async def update(self, limits: Limits, policy: str) -> None:
        """Set other limits, at once where it runs, and another restart policy."""
        async with self._changing, self._releasing:
            self._must_be()
            await finished(self._update(limits, policy))

    async def _update(self, limits: Limits, policy: str) -> None:
        if self.running:
            cgroup = self._host.cgroups.load(self.id)
            try:
                await asyncio.to_thread(cgroup.update, limits)
            except BaseException:
                await asyncio.to_thread(cgroup.update, self.state.config.limits)  # all of it or nothing
                raise
        config = msgspec.structs.replace(self.state.config, limits=limits, restart=policy)
        self._ledger.change(config=config)
        self._announcer.publish("update")

    def stats(self) -> Stats:
        """What its cgroup measures. Raises Conflict when it does not run."""
        if not self.running:
            raise Conflict(f"container {self.state.name} is not running")
        with self._its_end_told():
            return self._host.cgroups.load(self.id).stats()

    def pids(self) -> list[int]:
        self.inside.must_run(paused=True)
        with self._its_end_told():
            return self._host.cgroups.load(self.id).pids()

    @contextlib.contextmanager
    def _its_end_told(self) -> Iterator[None]:
        """A run that has ended is released in a thread, so its cgroup may go at any time."""
        try:
            yield
        except (NotFound, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            raise Conflict(f"container {self.state.name} has just ended") from None

    def place(self) -> Place:
        """Where its files are, for `container_files`."""
        layers = self._host.images.get(self.state.image_id).layers
        return Place(self.state, self.directory.path, layers, self._handles.program if self.running else -1)

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
