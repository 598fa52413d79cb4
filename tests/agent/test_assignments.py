from pathlib import Path

from swarmd.agent.assignments import Assignments
from swarmd.proto.objects_pb2 import Task


def test_tasks_survive_a_restart_until_dropped(tmp_path: Path) -> None:
    before = Assignments(tmp_path / "assignments")
    for task_id in ("a", "b"):
        before.save(Task(id=task_id, slot=1))
    before.save(Task(id="a", slot=2))
    before.drop("b")
    before.drop("never there")
    assert Assignments(tmp_path / "assignments").load() == [Task(id="a", slot=2)]


def test_a_damaged_file_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    assignments = Assignments(tmp_path)
    assignments.save(Task(id="a"))
    (tmp_path / "b.task").write_bytes(b"\xff\xff")
    assert assignments.load() == [Task(id="a")]
