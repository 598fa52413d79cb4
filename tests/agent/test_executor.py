"""Which ended containers of tasks are kept for their logs, and what is refused before a container is made."""

import base64
from typing import cast

import pytest

from swarmd.agent.controller import Refused
from swarmd.agent.executor import KEPT, Executor
from swarmd.agent.task_config import SERVICE_ID, TASK_ID, TASK_NAME
from swarmd.proto.objects_pb2 import NetworkAttachment, Task
from swarmd.runtime.engine import Engine
from swarmd.runtime.errors import Conflict
from swarmd.runtime.model import ContainerConfig, ContainerState, Exit, Phase
from swarmd.runtime.registry import Credentials


class Images:
    """Every image is here."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []  # with the user

    async def get(self, ref: str, *, credentials: Credentials | None = None) -> object:
        self.asked.append((ref, credentials.username if credentials else ""))
        return ref


class Engines:
    """An engine that has these containers."""

    def __init__(self, states: list[ContainerState]) -> None:
        self.started: set[str] = set()  # by hand, since they were listed
        self._states = states

    def list(self) -> list[ContainerState]:
        return list(self._states)

    async def gives_own_ids(self) -> bool:
        return True

    async def create(self, config: ContainerConfig, name: str) -> str:
        raise AssertionError(f"container {name} is made")

    async def remove(self, id: str, force: bool = False) -> None:
        if id in self.started:
            raise Conflict(f"container {id} is running: stop it first, or force its removal")
        self._states = [state for state in self._states if state.id != id]


def ended(service_id: str, name: str, slot: int, number: int) -> ContainerState:
    task_id = f"{service_id}-{slot}-{number}"
    labels = {SERVICE_ID: service_id, TASK_ID: task_id, TASK_NAME: f"{name}.{slot}.{task_id}"}
    return ContainerState(
        id=task_id,
        name=labels[TASK_NAME],
        config=ContainerConfig(image="i", labels=labels),
        image_id="i",
        phase=Phase.EXITED,
        created=number,
        exit=Exit(code=0, at=number),
    )


@pytest.mark.parametrize("name", ["web", "web.2"])
async def test_the_newest_of_each_slot_are_kept_also_of_a_service_that_had_the_name_before(name: str) -> None:
    engine = Engines([ended(id, name, slot, n) for id in ("old", "new") for slot in (1, 2) for n in range(KEPT + 2)])
    await Executor(cast("Engine", engine), "host1", Images()).prune(())
    kept = {f"{id}-{slot}-{n}" for id in ("old", "new") for slot in (1, 2) for n in range(2, KEPT + 2)}
    assert {state.id for state in engine.list()} == kept


async def test_a_container_that_somebody_has_just_started_holds_up_no_other_s_removal() -> None:
    engine = Engines([ended("s", "web", 1, n) for n in range(KEPT + 2)])
    engine.started = {"s-1-0"}
    await Executor(cast("Engine", engine), "host1", Images()).prune(())
    assert {state.id for state in engine.list()} == {f"s-1-{n}" for n in (0, *range(2, KEPT + 2))}


async def test_a_task_without_an_address_on_its_network_is_refused_before_anything_is_made() -> None:
    engine = Engines([])
    task = Task(id="t1", service_name="web", slot=1, networks=[NetworkAttachment(network_id="n", network_name="back")])
    with pytest.raises(Refused, match="no address on network back"):
        await Executor(cast("Engine", engine), "host1", Images()).controller(task).prepare()


async def test_an_image_is_asked_for_with_the_login_that_the_task_brings() -> None:
    engine, images = Engines([]), Images()
    given = base64.urlsafe_b64encode(b'{"username": "me", "password": "p"}').decode()
    task = Task(id="t1", service_name="web", slot=1, networks=[NetworkAttachment(network_id="n", network_name="back")])
    task.spec.container.image, task.spec.container.registry_auth = "localhost:1/web:1", given
    with pytest.raises(Refused, match="no address on network back"):
        await Executor(cast("Engine", engine), "host1", images).controller(task).prepare()
    assert images.asked == [("localhost:1/web:1", "me")]
