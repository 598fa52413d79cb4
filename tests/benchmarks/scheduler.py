"""How fast tasks are placed: `scheduler.py --nodes 1000 --tasks 100000 [--services S] [--constraints]`.

Timed ("plan"): taking the waiting groups from the index, building pools of nodes (every rule asked of every node),
choosing a node for each task and booking it.  Also shown, and not part of it: observing the tasks ("index") and
writing the ASSIGNED copies that a store would send ("messages").  Tasks and nodes are real protobuf messages.
"""

import argparse
import gc
import time
from collections import Counter
from dataclasses import dataclass

from swarmd.manager.scheduler.index import Index
from swarmd.manager.scheduler.plan import Plan, plan
from swarmd.manager.store.edit import edited
from swarmd.proto.objects_pb2 import NODE_AVAILABILITY_ACTIVE, NODE_STATE_READY, Node, Task
from swarmd.proto.task_states import ASSIGNED, PENDING, RUNNING

ZONES = 10


def node(number: int, tasks: int) -> Node:
    made = Node(id=f"node{number:05}")
    made.spec.availability = NODE_AVAILABILITY_ACTIVE
    made.spec.labels["zone"] = f"z{number % ZONES}"
    made.status.state = NODE_STATE_READY
    made.description.platform.os, made.description.platform.architecture = "linux", "x86_64"
    made.description.resources.nano_cpus = tasks * 10**9
    made.description.resources.memory_bytes = tasks << 30
    return made


def task(number: int, services: int, constraints: bool) -> Task:
    service = number % services
    made = Task(id=f"task{number:020}", service_id=f"service{service:06}", spec_version=1, slot=number + 1)
    made.status.state, made.desired_state = PENDING, RUNNING
    made.spec.container.image = "app:1"
    made.spec.resources.reservations.nano_cpus = 10**8
    made.spec.resources.reservations.memory_bytes = 64 << 20
    if constraints:
        zone = f"node.labels.zone==z{service % ZONES}"
        made.spec.placement.constraints.extend([zone, "node.platform.os==linux", "node.role!=manager"])
    return made


def assigned(decided: Plan) -> list[Task]:
    copies = []
    for placement in decided.placements:
        copy = edited(placement.task)
        copy.node_id, copy.status.state = placement.node_id, ASSIGNED
        copies.append(copy)
    return copies


@dataclass(frozen=True)
class Rates:
    """Per second."""

    plan: float
    index: float
    messages: float
    loads: tuple[int, int]  # fewest and most tasks of a node
    placed: int


def measure(nodes: int, tasks: int, services: int, constraints: bool) -> Rates:
    waiting = [task(number, services, constraints) for number in range(tasks)]
    index = Index()
    for number in range(nodes):
        index.observe(node(number, tasks))
    gc.collect()
    gc.freeze()  # the messages above are not the plan's garbage
    begin = time.perf_counter()
    for each in waiting:
        index.observe(each)
    observed = time.perf_counter()
    decided = plan(index.take_due(), index, now=0)
    planned = time.perf_counter()
    written = assigned(decided)
    end = time.perf_counter()
    gc.unfreeze()
    loads = Counter(copy.node_id for copy in written)
    return Rates(
        plan=tasks / (planned - observed),
        index=tasks / (observed - begin),
        messages=tasks / (end - planned),
        loads=(min(loads.values()), max(loads.values())),
        placed=len(written),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--services", type=int, default=1, help="tasks are spread over this many services")
    parser.add_argument("--constraints", action="store_true", help="three placement constraints per service")
    arguments = parser.parse_args()
    rates = measure(arguments.nodes, arguments.tasks, arguments.services, arguments.constraints)
    what = f"{arguments.tasks} tasks, {arguments.services} services, {arguments.nodes} nodes"
    print(what + (", 3 constraints each" if arguments.constraints else ""))
    print(f"  placed   {rates.placed:>9,}, {rates.loads[0]} to {rates.loads[1]} per node")
    print(f"  plan     {rates.plan:>9,.0f} placements/s")
    print(f"  index    {rates.index:>9,.0f} tasks/s")
    print(f"  messages {rates.messages:>9,.0f} tasks/s")


if __name__ == "__main__":
    main()
