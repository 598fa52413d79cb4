"""Waits until a service is as it was asked to be, and shows how it gets there.

Converged: the wanted number of tasks of the present spec run (healthy, where there is a check) and keep running for
a moment, and no update is going on.  A paused or rolled back update ends the wait with its reason.
"""

from __future__ import annotations

import sys
import time

from swarmd.swarmctl.client import Client, Refusal, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PERIOD = 0.2  # s, between looks
_STABLE = 1.0  # s that all must have run
_STOPPED = ("paused", "rollback_paused", "rollback_completed")


def wait(client: Client, id: str, *, quiet: bool = False, update_before: Any = None) -> int:
    """Return 0 once converged. update_before: the UpdateStatus from before a change, which tells an old one."""
    screen = _Screen(quiet)
    service: dict[str, Any] = {}
    since: float | None = None
    try:
        while True:
            service = client.get(f"/services/{segment(id)}")
            tasks = _tasks(client, service)
            running, wanted = _running(service, tasks), _wanted(service)
            update = service.get("UpdateStatus") or {}
            screen.show(f"{running}/{wanted} tasks running" + _doing(update), _problems(service, tasks))
            is_new = update != (update_before or {})
            if is_new and update.get("State") in _STOPPED:
                screen.end()
                raise Refusal(f"service {_name(service)}: {_doing(update).strip(' ()')}")
            is_there = running == wanted and _settled(service, tasks) and update.get("State") not in _GOING_ON
            since = (since or time.monotonic()) if is_there else None
            if since is not None and time.monotonic() - since >= (_STABLE if wanted else 0):
                screen.end(f"service {_name(service)} converged")
                return 0
            time.sleep(_PERIOD)
    except KeyboardInterrupt:
        screen.end()
        name = _name(service) if service else id
        print(f"stopped waiting; the service goes on: 'swarmctl service ps {name}' shows how", file=sys.stderr)
        return 130


_GOING_ON = ("updating", "rollback_started")


def _name(service: dict[str, Any]) -> str:
    return str(service["Spec"]["Name"])


def _tasks(client: Client, service: dict[str, Any]) -> list[dict[str, Any]]:
    return list(client.get("/tasks", filters={"service": [service["ID"]]}))


def _wanted(service: dict[str, Any]) -> int:
    return int(service["Spec"]["Mode"]["Replicated"].get("Replicas", 1))


def _is_current(service: dict[str, Any], task: dict[str, Any]) -> bool:
    parts = ("ContainerSpec", "Resources", "ForceUpdate")
    return all(task["Spec"].get(part) == service["Spec"]["TaskTemplate"].get(part) for part in parts)


def _running(service: dict[str, Any], tasks: list[dict[str, Any]]) -> int:
    return sum(
        task["DesiredState"] == "running" and task["Status"]["State"] == "running" and _is_current(service, task)
        for task in tasks
    )


def _settled(service: dict[str, Any], tasks: list[dict[str, Any]]) -> bool:
    """Whether none is left that should go."""
    return not any(
        task["Status"]["State"] == "running" and (task["DesiredState"] != "running" or not _is_current(service, task))
        for task in tasks
    )


def _doing(update: dict[str, Any]) -> str:
    state, message = update.get("State", ""), update.get("Message", "")
    words = {
        "rollback_started": "rolling back",
        "rollback_paused": "rollback paused",
        "rollback_completed": "rolled back",
    }
    text = ": ".join(filter(None, (words.get(state, state), message)))
    return f" ({text})" if state and state not in ("completed", "unknown") else ""


def _problems(service: dict[str, Any], tasks: list[dict[str, Any]]) -> list[str]:
    """The newest trouble of each slot that does not run."""
    newest: dict[int, dict[str, Any]] = {}
    for task in sorted(tasks, key=lambda task: str(task["CreatedAt"])):
        if task["Status"].get("Err") or task["Status"]["State"] == "running":
            newest[task.get("Slot", 0)] = task
    return [
        f"{_name(service)}.{slot}: {task['Status']['Err']}"
        for slot, task in sorted(newest.items())
        if task["Status"].get("Err") and task["Status"]["State"] != "running"
    ]


class _Screen:
    """One line that is written over on a terminal; a new line for each change elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live = sys.stdout.isatty()
        self._last = ""
        self._told: set[str] = set()

    def show(self, line: str, problems: list[str]) -> None:
        if self._quiet:
            return
        for problem in problems:
            if problem not in self._told:
                self._told.add(problem)
                self._clear()
                print(problem, flush=True)
                self._last = ""
        if line != self._last:
            self._clear()
            print(line, end="" if self._live else "\n", flush=True)
            self._last = line

    def end(self, line: str = "") -> None:
        if self._quiet:
            return
        if self._live and self._last:
            print()
        if line:
            print(line)

    def _clear(self) -> None:
        if self._live:
            print("\r\033[K", end="")
