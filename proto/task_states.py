"""The life of a task: states only grow, each has one writer, and a task that ended never starts again.

NEW ─ PENDING ─ ASSIGNED ─ ACCEPTED ─ PREPARING ─ READY ─ STARTING ─ RUNNING ─┬─ COMPLETE
└── managers write ───┘    └────────────── agents write ──────────────────────┼─ SHUTDOWN
                                                                              ├─ FAILED
desired: READY, RUNNING, SHUTDOWN or REMOVE, managers only                    └─ REJECTED
ORPHANED: managers, for a task whose node is gone
"""

from swarmd.proto import objects_pb2 as pb

NEW = pb.TASK_STATE_NEW
PENDING = pb.TASK_STATE_PENDING
ASSIGNED = pb.TASK_STATE_ASSIGNED
ACCEPTED = pb.TASK_STATE_ACCEPTED
PREPARING = pb.TASK_STATE_PREPARING
READY = pb.TASK_STATE_READY
STARTING = pb.TASK_STATE_STARTING
RUNNING = pb.TASK_STATE_RUNNING
COMPLETE = pb.TASK_STATE_COMPLETE
SHUTDOWN = pb.TASK_STATE_SHUTDOWN
FAILED = pb.TASK_STATE_FAILED
REJECTED = pb.TASK_STATE_REJECTED
REMOVE = pb.TASK_STATE_REMOVE
ORPHANED = pb.TASK_STATE_ORPHANED

ORDER = (
    NEW,
    PENDING,
    ASSIGNED,
    ACCEPTED,
    PREPARING,
    READY,
    STARTING,
    RUNNING,
    COMPLETE,
    SHUTDOWN,
    FAILED,
    REJECTED,
    REMOVE,
    ORPHANED,
)
ENDED = frozenset({COMPLETE, SHUTDOWN, FAILED, REJECTED, ORPHANED})
AGENT_WRITES = frozenset({ACCEPTED, PREPARING, READY, STARTING, RUNNING, COMPLETE, SHUTDOWN, FAILED, REJECTED})
DESIRED = (READY, RUNNING, SHUTDOWN, REMOVE)


def may_move(old: int, new: int) -> bool:
    """Whether an observed state may follow another: only forward, and never out of an ended one (but to ORPHANED)."""
    if old in ENDED:
        return new == ORPHANED and old != ORPHANED
    return new > old


def may_want(old: int, new: int) -> bool:
    """Whether a desired state may follow another: only forward."""
    return new >= old


def name(state: int) -> str:
    """The state as users read it: 'running'."""
    return pb.TaskState.Name(state).removeprefix("TASK_STATE_").lower()  # type: ignore[arg-type]
