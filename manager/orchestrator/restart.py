"""Replaces tasks that ended, in the same slot, as the service's restart policy says.

History is in `Service.restarts`, so a new leader counts on from there. The replacement exists at once, wanted READY and
not before its delay is over, so that its image and root file system are there when it is due.

A slot that fails again and again waits longer each time: the configured delay first, then twice that for each failure
of the last five minutes, up to a minute. A delay of 0 stays 0, but for tasks that their node rejects.
"""

from swarmd.manager.orchestrator.slots import (
    SECOND,
    Situation,
    Slot,
    Step,
    has_ended,
    is_wanted,
    new_task,
    vacant_at,
    wanting,
)
from swarmd.manager.orchestrator.update import is_current, is_paused
from swarmd.manager.store.edit import edited
from swarmd.proto import task_states as states
from swarmd.proto.clock import nanoseconds, timestamp
from swarmd.proto.objects_pb2 import (
    RESTART_CONDITION_NONE,
    RESTART_CONDITION_ON_FAILURE,
    RestartEvent,
    RestartHistory,
    RestartPolicy,
    Task,
)

DEFAULT_DELAY = 5 * SECOND
LONGEST_BACKOFF = 60 * SECOND
REJECTED_DELAY = 1 * SECOND  # least second delay of a task that can't even start
RECENT = 300 * SECOND
EVENTS_PER_SLOT = 8  # enough for the back-off to reach its bound
EVENTS = 1024  # of one service in all: about 60 KiB


def replace_ended(slot: Slot, situation: Situation) -> Step | None:
    """Retire the slot's ended tasks, and make the replacement that the policy allows."""
    wanted = slot.wanted
    ended = [task for task in wanted if has_ended(task)]
    if not ended:
        return None
    last, now = ended[-1], situation.now
    retired = tuple(wanting(task, states.SHUTDOWN, now) for task in ended)
    if _is_covered([task for task in wanted if not has_ended(task)], situation):
        return Step(slot.number, retired)
    if last.status.state == states.ORPHANED:  # its node's fault, not its own
        return Step(slot.number, (*retired, new_task(situation, slot.number, slot.unwanted)))
    if reason := refusal(last, situation):
        return Step(slot.number, (*retired[:-1], _finished(retired[-1], reason)))
    replacement = new_task(situation, slot.number, slot.unwanted, not_before=now + delay(last, situation))
    return Step(slot.number, (*retired, replacement), restart=_event(last, now))


def _is_covered(alive: list[Task], situation: Situation) -> bool:
    """Whether another task makes up for those that ended: one of the new kind, or any while an update is paused."""
    service = situation.service
    return bool(alive) and (is_paused(service) or any(is_current(task, service) for task in alive))


def refusal(task: Task, situation: Situation) -> str:
    """Why the policy leaves an ended task unreplaced, or nothing."""
    policy = task.spec.restart
    if policy.condition == RESTART_CONDITION_NONE:
        return "not restarted: restart condition is none"
    if policy.condition == RESTART_CONDITION_ON_FAILURE and task.status.state == states.COMPLETE:
        return "not restarted: it completed, and restart condition is on-failure"
    if not policy.max_attempts:
        return ""
    since = situation.now - policy.window if policy.window else 0
    made = sum(nanoseconds(event.at) > since for event in events_of(task.slot, situation))
    if made < policy.max_attempts:
        return ""
    within = f" within {policy.window / SECOND:g}s" if policy.window else ""
    return f"not restarted: all {policy.max_attempts} restart attempts were used{within}"


def delay(task: Task, situation: Situation) -> int:
    """Nanoseconds from the end of a task to the start of its replacement."""
    policy = task.spec.restart
    configured = policy.delay if policy.HasField("delay") else DEFAULT_DELAY
    since = situation.now - RECENT
    failures = sum(event.failed and nanoseconds(event.at) > since for event in events_of(task.slot, situation))
    if not failures or not _has_failed(task):
        return configured
    base = max(configured, REJECTED_DELAY) if task.status.state == states.REJECTED else configured
    return max(configured, min(base << min(failures, 32), LONGEST_BACKOFF))


def start_due(slot: Slot, situation: Situation) -> Step | None:
    """Let the slot's prepared tasks start, once their delay is over and the slot is free."""
    due = tuple(
        wanting(task, states.RUNNING, situation.now)
        for task in slot.wanted
        if not has_ended(task) and 0 < start_time(task, slot, situation) <= situation.now
    )
    return Step(slot.number, due) if due else None


def start_time(task: Task, slot: Slot, situation: Situation) -> int:
    """When a prepared task may start (1: at any time); 0 for one that may already."""
    if task.desired_state != states.READY:
        return 0
    return max(1, nanoseconds(task.not_before), vacant_at(slot.unwanted, situation))


def next_start(situation: Situation) -> int | None:
    """The next moment at which `start_due` has something to do, if nothing changes before."""
    times = (
        start_time(task, slot, situation)
        for slot in situation.slots.values()
        for task in slot.tasks
        if is_wanted(task) and not has_ended(task)
    )
    return min((time for time in times if time), default=None)


def events_of(slot: int, situation: Situation) -> list[RestartEvent]:
    return [event for event in situation.service.restarts.events if event.slot == slot]


def record(history: RestartHistory, steps: list[Step], policy: RestartPolicy) -> RestartHistory:
    """The history with these steps' restarts, bounded: what the policy counts is kept, older events go."""
    forgotten = {step.slot for step in steps if step.forget}
    events = [event for event in history.events if event.slot not in forgotten]
    events += [step.restart for step in steps if step.restart is not None]
    limit = max(EVENTS_PER_SLOT, policy.max_attempts)
    seen: dict[int, int] = {}
    kept: list[RestartEvent] = []
    for event in reversed(events):
        seen[event.slot] = seen.get(event.slot, 0) + 1
        if seen[event.slot] <= limit:
            kept.append(event)
    return RestartHistory(events=reversed(kept[:EVENTS]))


def _event(task: Task, now: int) -> RestartEvent:
    return RestartEvent(slot=task.slot, node_id=task.node_id, at=timestamp(now), failed=_has_failed(task))


def _has_failed(task: Task) -> bool:
    return task.status.state != states.COMPLETE


def _finished(task: Task, reason: str) -> Task:
    copy = edited(task)
    copy.final = True
    copy.status.message = reason
    return copy
