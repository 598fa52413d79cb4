"""Rolls a changed service out to its tasks, slot by slot, and back again if that goes wrong.

All it knows is in the store: which tasks are of the new kind, since when they run (`Task.running_since`, by the
leader's clock), and `Service.update_status`. A status that is about another spec_version is superseded by a new update.

    UPDATING ──── COMPLETED                    failure_action pause: PAUSED until the service is changed again
       └ rollback ─ ROLLBACK_STARTED ─ ROLLBACK_COMPLETED  (or ROLLBACK_PAUSED)

`revise` and `rolled_back` make the service that the cluster API writes; `needs_new_tasks` tells which roll at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from swarmd.manager.orchestrator.slots import (
    NEVER,
    SECOND,
    Situation,
    Slot,
    Step,
    age_key,
    has_ended,
    is_wanted,
    new_task,
    template,
    wanting,
)
from swarmd.manager.store.edit import edited
from swarmd.proto import task_states as states
from swarmd.proto.clock import nanoseconds, timestamp
from swarmd.proto.objects_pb2 import (
    FAILURE_ACTION_CONTINUE,
    FAILURE_ACTION_ROLLBACK,
    RESTART_CONDITION_ANY,
    UPDATE_ORDER_START_FIRST,
    UPDATE_STATE_COMPLETED,
    UPDATE_STATE_PAUSED,
    UPDATE_STATE_ROLLBACK_COMPLETED,
    UPDATE_STATE_ROLLBACK_PAUSED,
    UPDATE_STATE_ROLLBACK_STARTED,
    UPDATE_STATE_UPDATING,
    PortConfig,
    Service,
    ServiceSpec,
    Task,
    UpdateConfig,
    UpdateState,
    UpdateStatus,
)

DEFAULT_PARALLELISM = 1
DEFAULT_MONITOR = 5 * SECOND

ACTIVE = frozenset({UPDATE_STATE_UPDATING, UPDATE_STATE_ROLLBACK_STARTED})
PAUSED = frozenset({UPDATE_STATE_PAUSED, UPDATE_STATE_ROLLBACK_PAUSED})


# ---------------------------------------------------------------- what the cluster API writes


def needs_new_tasks(old: ServiceSpec, new: ServiceSpec) -> bool:
    """Whether a change reaches the containers: the task template, its networks or the ports; not replicas or labels."""
    return template(old) != template(new) or list(old.endpoint.ports) != list(new.endpoint.ports)


def revise(service: Service, spec: ServiceSpec) -> Service:
    """The service with a new spec, and the old one kept for a rollback; the same spec has a paused update go on."""
    revised = edited(service)
    if spec == service.spec:
        revised.spec_version += is_paused(service)  # failures of before do not count
        return revised
    rolls = needs_new_tasks(service.spec, spec)
    # A change of scale during an update must not cost the update the spec that it would roll back to.
    if rolls or not (is_updating(service) or is_paused(service)):
        revised.previous_spec.CopyFrom(service.spec)
    revised.spec.CopyFrom(spec)
    revised.spec_version += rolls
    return revised


def rolled_back(service: Service, now: int, message: str) -> Service:
    """The service with its previous spec, which it must have; the spec it had becomes the previous one."""
    reverted = edited(service)
    reverted.spec.CopyFrom(service.previous_spec)
    reverted.previous_spec.CopyFrom(service.spec)
    if needs_new_tasks(service.spec, service.previous_spec):
        reverted.spec_version += 1
        reverted.update_status.CopyFrom(_status(UPDATE_STATE_ROLLBACK_STARTED, reverted, now, message))
    return reverted


# ---------------------------------------------------------------- the state of an update


def is_updating(service: Service) -> bool:
    return service.update_status.state in ACTIVE and not is_superseded(service)


def is_paused(service: Service) -> bool:
    return service.update_status.state in PAUSED and not is_superseded(service)


def is_superseded(service: Service) -> bool:
    return service.update_status.spec_version != service.spec_version


def is_current(task: Task, service: Service) -> bool:
    """Whether the task is as the service is now; a rollback finds tasks that were never changed, and leaves them."""
    if task.spec_version == service.spec_version:
        return True
    wanted = template(service.spec)
    if task.status.state == states.RUNNING and task.spec.container.registry_auth != wanted.container.registry_auth:
        # The login that its image was fetched with is no reason to start it again.
        wanted = edited(wanted)
        wanted.container.registry_auth = task.spec.container.registry_auth
    return task.spec == wanted and _has_ports(task, service.spec.endpoint.ports)


def _has_ports(task: Task, wanted: Sequence[PortConfig]) -> bool:
    def key(port: PortConfig) -> tuple[int, str, int, int]:
        return port.target_port, port.protocol, port.publish_mode, port.published_port

    bound = sorted(task.ports, key=key)
    return len(bound) == len(wanted) and all(
        key(have)[:3] == key(want)[:3] and want.published_port in (0, have.published_port)
        for have, want in zip(bound, sorted(wanted, key=key), strict=True)
    )


def _status(state: UpdateState.ValueType, service: Service, now: int, message: str) -> UpdateStatus:
    return UpdateStatus(state=state, started_at=timestamp(now), message=message, spec_version=service.spec_version)


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a pass of the updater decides: steps in slots, or a new state of the whole; `due` is its next moment."""

    steps: list[Step]
    service: Service | None = None
    due: int | None = None


def retire_spare(slot: Slot, situation: Situation) -> Step | None:
    """Keep one task of a slot: a new one once it runs; until then also an old one, which serves meanwhile."""
    alive = [task for task in slot.wanted if not has_ended(task)]
    if len(alive) < 2:
        return None
    current = [task for task in alive if is_current(task, situation.service)]
    keep = _best(current)
    if not any(_runs(task) for task in current):
        keep += _best([task for task in alive if task not in current])
    spare = tuple(wanting(task, states.SHUTDOWN, situation.now) for task in alive if task not in keep)
    return Step(slot.number, spare) if spare else None


def _best(tasks: list[Task]) -> list[Task]:
    return [max(tasks, key=lambda task: task.status.state)] if tasks else []


def _runs(task: Task) -> bool:
    return task.status.state == states.RUNNING and is_wanted(task)


def plan(situation: Situation) -> Rollout:
    """Take the service one step nearer to having only tasks of its present spec."""
    service = situation.service
    slots = situation.held()
    dirty = [slot for slot in slots if _is_dirty(slot, service)]
    state = service.update_status.state
    if not is_updating(service):
        # One that was superseded is ended by another, even if that has nothing to change.
        wanted = (dirty and not is_paused(service)) or state in ACTIVE
        return _begin(situation) if wanted else Rollout([])

    config = service.spec.rollback if state == UPDATE_STATE_ROLLBACK_STARTED else service.spec.update
    seen = [_first_seen_running(slot, situation) for slot in slots]
    if marks := [step for step in seen if step is not None]:
        return Rollout(marks)
    failed = {slot.number: task for slot in slots if (task := _failure(slot, situation, config))}
    too_many = len(failed) > config.max_failure_ratio * len(slots)
    if too_many and (stopped := _stop(situation, config, next(iter(failed.values())))):
        return Rollout([], service=stopped)
    return _proceed(situation, config, dirty, failed)


def _begin(situation: Situation) -> Rollout:
    service = edited(situation.service)
    service.update_status.CopyFrom(_status(UPDATE_STATE_UPDATING, service, situation.now, "update in progress"))
    return Rollout([], service=service)


def _is_dirty(slot: Slot, service: Service) -> bool:
    task = _foremost(slot, service)
    return task is not None and not is_current(task, service)


def _foremost(slot: Slot, service: Service) -> Task | None:
    """The task by which an update judges the slot: one that is as the service is now, though another be newer.

    One of this update that the restart policy has given up counts too: with start-first the old task serves on.
    """
    telling = [
        task
        for task in slot.tasks
        if (is_wanted(task) and is_current(task, service)) or (task.final and _is_watched(task, service))
    ]
    return max(telling, key=lambda task: (is_wanted(task), age_key(task)), default=slot.newest)


def _is_watched(task: Task, service: Service) -> bool:
    """Whether it was made by this update, rather than found to be right already."""
    return task.spec_version == service.spec_version


def _first_seen_running(slot: Slot, situation: Situation) -> Step | None:
    marked = []
    for task in slot.wanted:
        if _runs(task) and _is_watched(task, situation.service) and not task.HasField("running_since"):
            copy = edited(task)
            copy.running_since.CopyFrom(timestamp(situation.now))
            marked.append(copy)
    return Step(slot.number, tuple(marked)) if marked else None


def _failure(slot: Slot, situation: Situation, config: UpdateConfig) -> Task | None:
    """The slot's first task of this update that failed before it had run for the monitor period."""
    for task in slot.tasks:
        if not _is_watched(task, situation.service) or not _ended_early(task):
            continue
        end = situation.now if is_wanted(task) else nanoseconds(task.desired_since)
        if not task.HasField("running_since") or end - nanoseconds(task.running_since) <= monitor(config):
            return task
    return None


def _ended_early(task: Task) -> bool:
    if task.status.state == states.COMPLETE:
        return task.spec.restart.condition == RESTART_CONDITION_ANY
    return task.status.state in (states.FAILED, states.REJECTED)


def monitor(config: UpdateConfig) -> int:
    return config.monitor if config.HasField("monitor") else DEFAULT_MONITOR


def _stop(situation: Situation, config: UpdateConfig, task: Task) -> Service | None:
    """The service with its update paused or turned back; None if it goes on in spite of failures."""
    if config.failure_action == FAILURE_ACTION_CONTINUE:
        return None
    service, now = situation.service, situation.now
    cause = f"due to failure or early termination of task {task.id}"
    rolling_back = service.update_status.state == UPDATE_STATE_ROLLBACK_STARTED
    if config.failure_action == FAILURE_ACTION_ROLLBACK and not rolling_back and service.HasField("previous_spec"):
        if needs_new_tasks(service.spec, service.previous_spec):
            reverted = rolled_back(service, now, f"update rolled back {cause}")
            reverted.ClearField("previous_spec")  # it is the one that failed
            return reverted
        cause += "; its previous spec has the same task template, so there is nothing to roll back to"
    paused = edited(service)
    paused.update_status.state = UPDATE_STATE_ROLLBACK_PAUSED if rolling_back else UPDATE_STATE_PAUSED
    paused.update_status.message = f"{'rollback' if rolling_back else 'update'} paused {cause}"
    return paused


def _proceed(situation: Situation, config: UpdateConfig, dirty: list[Slot], failed: dict[int, Task]) -> Rollout:
    """Change as many slots as parallelism leaves room for; when none is left and all are well, complete.

    A slot that failed is not waited for: from there on it is the restart policy's. If it lost its replacement some
    other way, with its node say, it is changed again.
    """
    service, now = situation.service, situation.now
    clean = [slot for slot in situation.held() if slot not in dirty and slot.number not in failed]
    if dirty:
        busy = [time for slot in clean if (time := _settled_at(slot, service, config.delay)) > now]
        parallelism = config.parallelism if config.HasField("parallelism") else DEFAULT_PARALLELISM
        room = len(dirty) if parallelism == 0 else max(parallelism - len(busy), 0)
        # What serves nobody is changed first: it costs nothing.
        order = sorted(dirty, key=lambda slot: (any(map(_runs, slot.wanted)), slot.number))
        return Rollout([_renew(slot, situation, config) for slot in order[:room]], due=_earliest(busy))
    watched = [time for slot in clean if (time := _settled_at(slot, service, monitor(config))) > now]
    return Rollout([], due=_earliest(watched)) if watched else Rollout([], service=_completed(situation))


def _settled_at(slot: Slot, service: Service, after: int) -> int:
    """When the slot's task will have run for so long: 0 for one that this update did not make, NEVER until it runs."""
    task = _foremost(slot, service)
    if task is None or task.final or not _is_watched(task, service):
        return 0
    return nanoseconds(task.running_since) + after if _runs(task) else NEVER


def _earliest(times: list[int]) -> int | None:
    return min((time for time in times if time < NEVER), default=None)


def _renew(slot: Slot, situation: Situation, config: UpdateConfig) -> Step:
    alive = [task for task in slot.wanted if not has_ended(task)]
    if config.order == UPDATE_ORDER_START_FIRST:
        return Step(slot.number, (new_task(situation, slot.number, slot.unwanted),), forget=True)
    retired = tuple(wanting(task, states.SHUTDOWN, situation.now) for task in alive)
    made = new_task(situation, slot.number, (*slot.unwanted, *retired))
    return Step(slot.number, (*retired, made), forget=True)


def _completed(situation: Situation) -> Service:
    service = edited(situation.service)
    status = service.update_status
    rolled = status.state == UPDATE_STATE_ROLLBACK_STARTED
    status.state = UPDATE_STATE_ROLLBACK_COMPLETED if rolled else UPDATE_STATE_COMPLETED
    status.message = "rollback completed" if rolled else "update completed"
    status.completed_at.CopyFrom(timestamp(situation.now))
    return service
