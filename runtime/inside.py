"""What clients do in a container that runs: its own streams, and programs beside its own."""

import socket

import msgspec

from swarmd.runtime.announcer import Announcer
from swarmd.runtime.attach import Replay, Streams, Waiting, attach, resize
from swarmd.runtime.errors import Conflict, StartError
from swarmd.runtime.exec import Command, Exec, ExecResult, begin, execute, start_once
from swarmd.runtime.handles import Handles
from swarmd.runtime.records import Ledger
from swarmd.runtime.spawner_client import Spawner


class Inside:
    def __init__(self, ledger: Ledger, handles: Handles, spawner: Spawner, announcer: Announcer) -> None:
        self._ledger, self._handles, self._spawner, self._announcer = ledger, handles, spawner, announcer
        self._path = ledger.directory.path
        self.waiting = Waiting()  # clients attached before the start

    def must_run(self, paused: bool = False) -> None:
        """Raise Conflict unless it runs; paused: one that is paused will do."""
        state = self._ledger.state
        if self._ledger.running and state.paused and not paused:
            raise Conflict(f"container {state.name} is paused: unpause it first")
        if not self._ledger.running or self._handles.program < 0:
            raise Conflict(f"container {state.name} is not running")

    async def attach(self, connection: socket.socket, streams: Streams, replay: Replay | None = None) -> None:
        """Hand over a client's connection; before the start it waits for that."""
        self._announcer.publish("attach")
        if self._ledger.running:
            await attach(self._path, connection, streams, replay)
            return
        try:
            if replay:
                await replay(0)
            self.waiting.add(connection, streams)
        except BaseException:
            connection.close()
            raise

    async def resize(self, height: int, width: int) -> None:
        self.must_run()
        await resize(self._path, height, width)
        self._announcer.publish("resize", height=str(height), width=str(width))

    async def exec(self, command: Command, timeout: float | None = None) -> ExecResult:
        self.must_run()
        return await execute(self._spawner, self._path, self._handles.program, command, timeout=timeout)

    def exec_create(self, command: Command, streams: Streams) -> Exec:
        self.must_run()
        made = Exec(self._ledger.state.id, command, streams)
        self._announcer.publish(f"exec_create: {' '.join(command.command)}", execID=made.id)
        return made

    def check_exec(self, made: Exec) -> None:
        """Refuse what can't be started, while there still is an answer to refuse it with."""
        self.must_run()
        start_once(made)

    async def exec_start(self, made: Exec, connection: socket.socket | None, size: tuple[int, int]) -> None:
        """Return once the program runs; then `exec_keep` must be run."""
        command = msgspec.structs.replace(made.command, size=size) if any(size) else made.command
        self._announcer.publish(f"exec_start: {' '.join(command.command)}", execID=made.id)
        try:
            made.running = await begin(
                self._spawner, self._path, self._handles.program, command, connection, made.streams
            )
        except StartError as error:
            made.failed = error.exit_code
            raise

    async def exec_keep(self, made: Exec) -> None:
        if made.running:
            await made.running.keep()
            self._announcer.publish("exec_die", execID=made.id, exitCode=str(made.exit_code))
