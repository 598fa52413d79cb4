import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.host.engine_host import Host, add_image, engine_in, leftovers, remove_parents, until
from tests.run import RUN


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    parent = f"st-{RUN}"
    async with engine_in(tmp_path, parent) as engine:
        await add_image(engine.images)
        yield Host(engine, tmp_path)
        for state in engine.list():
            await engine.remove(state.id, force=True)
    await until("nothing is left", lambda: not leftovers(tmp_path, parent))
    remove_parents(parent)
    shutil.rmtree(tmp_path)
