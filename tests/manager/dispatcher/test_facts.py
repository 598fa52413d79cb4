"""What nodes are told of a task."""

from swarmd.manager.dispatcher.facts import facts_of
from swarmd.proto import objects_pb2 as pb
from tests.manager.records import Records, node


def test_a_task_is_an_endpoint_only_while_its_node_is_there() -> None:
    attachment = pb.NetworkAttachment(network_id="net", addresses=["10.1.0.3/24"])
    task = pb.Task(id="t", node_id="n1", networks=[attachment], status=pb.TaskStatus(state=pb.TASK_STATE_RUNNING))
    there = [change.endpoint.node_addr for change in facts_of(Records(node("n1")), task).values()]  # type: ignore[arg-type]
    assert sorted(there) == ["", "10.0.0.1"], "the task itself, and where it is reached"
    assert not any(change.HasField("endpoint") for change in facts_of(Records(), task).values())  # type: ignore[arg-type]
