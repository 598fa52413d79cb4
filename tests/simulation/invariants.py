"""What must hold in a simulated cluster: at every start of a task, at every commit, and once the faults are over."""

from collections import Counter
from collections.abc import Iterable

from swarmd.manager.orchestrator.slots import OLD_TASK_TIMEOUT
from swarmd.manager.orchestrator.update import is_current, is_updating
from swarmd.manager.store.interface import Changed, View
from swarmd.proto import task_states as states
from swarmd.proto.clock import nanoseconds
from swarmd.proto.objects_pb2 import (
    NODE_STATE_READY,
    UPDATE_ORDER_START_FIRST,
    UPDATE_STATE_PAUSED,
    UPDATE_STATE_ROLLBACK_PAUSED,
    Node,
    Service,
    Task,
)
from tests.manager.orchestrator.world import check_move
from tests.simulation.agent import Agent

DECIDING = 1_000_000_000  # ns, at most, between the time stamped into a change and its commit


class Violation(AssertionError):
    """Something that must hold did not."""


def check_change(view: View, change: Changed) -> None:
    """States only grow, a task neither moves nor is reused, and none is made for a slot that has one."""
    if isinstance(change.old, Task) and isinstance(change.new, Task):
        check_move(change.old, change.new)
    if change.old is None and isinstance(change.new, Task) and not _starts_first(view, change.new):
        task = change.new
        mates = [mate.id for mate in view.find(Task, service_id=task.service_id) if _is_wanted_beside(mate, task)]
        if mates:
            raise Violation(f"{task.id} is made for slot {task.slot} of {task.service_name}, which has {mates}")


def _is_wanted_beside(mate: Task, task: Task) -> bool:
    return mate.slot == task.slot and mate.id != task.id and mate.desired_state <= states.RUNNING


def check_start(view: View, agents: Iterable[Agent], starting: Agent, task: Task) -> None:
    """No other task of the slot is alive on a node that answers, but those that an exception names."""
    for agent in agents:
        for other in agent.live():
            same = (other.service_id, other.slot) == (task.service_id, task.slot) and other.id != task.id
            if same and not _may_overlap(view, other, task):
                raise Violation(
                    f"slot {task.slot} of {task.service_name} runs twice: {starting.name} starts {task.id} while "
                    f"{agent.name} runs {other.id}"
                )


def _may_overlap(view: View, old: Task, new: Task) -> bool:
    released = view.get(Task, new.id)
    if released is None or released.desired_state > states.RUNNING:
        return True  # its agent has not heard yet that it is to stop
    allowed_at = nanoseconds(released.desired_since)
    node = view.get(Node, old.node_id)
    if node is None or node.status.state != NODE_STATE_READY or nanoseconds(node.heard_at) > allowed_at - DECIDING:
        return True  # its node was lost when the new task was let start
    known = view.get(Task, old.id)
    if known is None:
        return False
    if known.desired_state > states.RUNNING:
        given_up = nanoseconds(known.desired_since) + OLD_TASK_TIMEOUT <= allowed_at
        return given_up or (_starts_first(view, new) and allowed_at - DECIDING <= nanoseconds(known.desired_since))
    return _starts_first(view, new)


def _starts_first(view: View, task: Task) -> bool:
    service = view.get(Service, task.service_id)
    return service is not None and service.spec.update.order == UPDATE_ORDER_START_FIRST


def unsettled(view: View, agents: Iterable[Agent], acknowledged: dict[str, int], removed: set[str]) -> str:
    """Why the cluster is not yet what its users asked for, or nothing."""
    running = Counter((task.service_id, task.slot) for agent in agents for task in agent.live())
    expected: set[tuple[str, int]] = set()
    services = {service.id: service for service in view.find(Service)}
    for id, operation in acknowledged.items():
        if id not in services:
            return f"{id} is gone, and nobody removed it"
        if int(services[id].spec.labels["operation"]) < operation:
            return f"operation {operation} on {id} was acknowledged, and is lost"
    if back := removed & services.keys():
        return f"removed services are still there: {sorted(back)}"
    for service in services.values():
        if why := _unsettled_service(service, view.find(Task, service_id=service.id)):
            return why
        for task in view.find(Task, service_id=service.id):
            if task.desired_state <= states.RUNNING:
                expected.add((service.id, task.slot))
    if set(running) != expected or any(n != 1 for n in running.values()):
        return f"running {sorted(running.items())}, expected {sorted(expected)}"
    return ""


def _unsettled_service(service: Service, tasks: Iterable[Task]) -> str:
    kept = [task for task in tasks if task.desired_state < states.REMOVE]
    slots = {task.slot for task in kept}
    replicas = service.spec.mode.replicated.replicas
    if len(slots) != replicas:
        return f"{service.id} holds slots {sorted(slots)} for {replicas} replicas"
    wanted = [task for task in kept if task.desired_state <= states.RUNNING]
    # The restart policy gave these up; with start-first the old task serves on there.
    left = {task.slot for task in kept if task.final}
    if empty := slots - left - {task.slot for task in wanted}:
        return f"{service.id} has nothing in slots {sorted(empty)}"
    if is_updating(service):
        return f"{service.id} is still being updated"
    stale = [task.id for task in wanted if not is_current(task, service) and task.slot not in left]
    if stale and service.update_status.state not in (UPDATE_STATE_PAUSED, UPDATE_STATE_ROLLBACK_PAUSED):
        return f"{service.id} still has tasks of an old spec: {stale}"
    return ""


def describe(change: Changed) -> str:
    task = change.obj
    assert isinstance(task, Task)
    if change.new is None:
        return f"  {task.id} is deleted"
    return (
        f"  {task.id} slot {task.slot} of {task.service_id} on {task.node_id or 'no node'}: "
        f"{states.name(task.status.state)}, wanted {states.name(task.desired_state)}, spec {task.spec_version}"
    )
