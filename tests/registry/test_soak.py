"""Many faults at random: whatever happens in between, the right bytes or one sentence come out."""

import asyncio
import os
import random
from contextlib import aclosing, suppress

import pytest

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.registry import Patience, Registries, Settings
from tests.registry.conftest import QUICK
from tests.registry.faults import Fault, Proxy
from tests.registry.images import collected, described, named, noise, opener

ROUNDS = int(os.environ.get("SWARMD_FUZZ_EXAMPLES", "80")) // 8
PUSH = ("pull", "push")
HASTY = Patience(connect=2.0, silence=0.1, tries=4, first_wait=0.001, longest_wait=0.002, longest_retry_after=0.0)
SIZE = 1_500_000


def mishap(chance: random.Random, method: str) -> Fault:
    at = chance.choice([0, 1, 300_000, SIZE - 1])
    harm = chance.choice(
        ["cut", "cut", "end", "corrupt", "extra", "status", "range", "stall", "lose", "request", "none"]
    )
    fault = Fault(method, "blobs/")
    match harm:
        case "cut":
            fault.cut_after = at
        case "end":
            fault.end_after = at
        case "corrupt":
            fault.corrupt_at = at
        case "extra":
            fault.extra, fault.drop = b"x", ("Content-Length",)
        case "status":
            fault.status = chance.choice([400, 401, 403, 404, 413, 416, 429, 500, 503])
        case "range":
            fault.ignore_range = True
        case "stall":
            fault.stall_after = at
        case "lose":
            fault.lose_answer = True
        case "request":
            fault.cut_request_after = at
    return fault


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_what_is_pulled_is_right_or_refused(proxy: Proxy, registries: Registries, plain: str, seed: int) -> None:
    chance = random.Random(seed)
    data = noise(SIZE, seed)
    await registries.repository(named(plain, "soak"), actions=PUSH).push_blob(described(data), opener(data))
    proxy.faults = [mishap(chance, "GET") for _ in range(chance.randint(1, 6))]
    async with Registries(Settings(patience=HASTY)) as hasty:
        with suppress(RuntimeFault):
            assert await collected(hasty.repository(named(proxy.host, "soak")).blob(described(data))) == data


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_what_is_pushed_is_there_or_refused(proxy: Proxy, registries: Registries, plain: str, seed: int) -> None:
    chance = random.Random(seed)
    data = noise(SIZE, 1000 + seed)
    faults = [mishap(chance, chance.choice(["POST", "PATCH", "PUT", "GET"])) for _ in range(chance.randint(1, 6))]
    proxy.faults = [fault for fault in faults if fault.corrupt_at is None]
    straight = registries.repository(named(plain, "soak-push"), actions=PUSH)
    async with Registries(Settings(patience=HASTY)) as hasty:
        repository = hasty.repository(named(proxy.host, "soak-push"), actions=PUSH)
        with suppress(RuntimeFault):
            await repository.push_blob(described(data), opener(data))
            assert await collected(straight.blob(described(data))) == data


async def test_one_who_stops_early_leaves_no_connection(proxy: Proxy, plain: str) -> None:
    data = noise(30_000_000, 51)
    async with Registries(Settings(patience=QUICK)) as registries:
        straight = registries.repository(named(plain, "early"), actions=PUSH)
        await straight.push_blob(described(data), opener(data))
        repository = registries.repository(named(proxy.host, "early"), actions=PUSH)
        async with aclosing(repository.blob(described(data))) as pieces:
            assert await anext(pieces)
        pull = asyncio.create_task(collected(repository.blob(described(data))))
        started = asyncio.Event()

        async def endless(offset: int):  # type: ignore[no-untyped-def]
            started.set()
            yield b"x" * 1_000_000
            await asyncio.Event().wait()

        push = asyncio.create_task(repository.push_blob(described(noise(3_000_000, 52)), endless))
        await asyncio.wait_for(started.wait(), 5)
        for task in (pull, push):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await collected(straight.blob(described(data))) == data
