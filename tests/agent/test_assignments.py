import errno
from pathlib import Path

import pytest

from swarmd.agent.assignments import Assignments
from swarmd.proto.objects_pb2 import Task, TaskStatus
from swarmd.proto.task_states import ASSIGNED, FAILED, RUNNING, STARTING


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


def test_how_far_the_node_has_come_outlasts_what_managers_know(tmp_path: Path) -> None:
    assignments = Assignments(tmp_path)
    for task_id in ("a", "b"):
        assignments.save(Task(id=task_id, slot=1, status=TaskStatus(state=ASSIGNED)))
    assignments.save_status("a", TaskStatus(state=RUNNING))
    assignments.save_status("a", TaskStatus(state=FAILED, err="no"))
    assignments.save(Task(id="a", slot=1, desired_state=RUNNING, status=TaskStatus(state=ASSIGNED)))
    assert Assignments(tmp_path).load() == [
        Task(id="a", slot=1, desired_state=RUNNING, status=TaskStatus(state=FAILED, err="no")),
        Task(id="b", slot=1, status=TaskStatus(state=ASSIGNED)),
    ]


def test_nothing_stays_of_a_task_that_was_dropped_while_it_ended(tmp_path: Path) -> None:
    assignments = Assignments(tmp_path)
    assignments.save(Task(id="a"))
    assignments.save_status("a", TaskStatus(state=RUNNING))
    assignments.drop("a")
    assert not list(tmp_path.iterdir())
    assignments.save_status("a", TaskStatus(state=FAILED))
    assert assignments.load() == []
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_no_file_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assignments = Assignments(tmp_path)

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("swarmd.agent.assignments.write_atomically", full)
        assignments.save(Task(id="a"))
        assignments.save(Task(id="b"))
        with pytest.raises(OSError, match="No space left"):
            assignments.save_status("a", TaskStatus(state=STARTING))
    assert [record.message.count("No space left") for record in caplog.records] == [1]
    assignments.save(Task(id="a"))
    assert [task.id for task in assignments.load()] == ["a"]
