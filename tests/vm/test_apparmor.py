"""AppArmor, which the kernel of the virtual machine has: a profile confines the program that it was asked for."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.runtime.errors import RuntimeFault
from swarmd.runtime.model import Security
from tests.host.conftest import host as host
from tests.host.engine_host import Host

ENABLED = Path("/sys/module/apparmor/parameters/enabled")
pytestmark = [
    pytest.mark.root,
    pytest.mark.vm,
    pytest.mark.skipif(
        not (ENABLED.exists() and ENABLED.read_text().startswith("Y") and shutil.which("apparmor_parser")),
        reason="this kernel has no AppArmor",
    ),
]
PROFILE = """profile swarmd-test flags=(attach_disconnected) {
  file,
  deny /secret rwklx,
}
"""


@pytest.fixture
def profile() -> Iterator[str]:
    interface = Path("/sys/kernel/security")
    made = not (interface / "apparmor").exists()
    if made:
        subprocess.run(["mount", "-t", "securityfs", "securityfs", interface], check=True)
    subprocess.run(["apparmor_parser", "-rK"], input=PROFILE, text=True, check=True)
    yield "swarmd-test"
    subprocess.run(["apparmor_parser", "-RK"], input=PROFILE, text=True, check=True)
    if made:
        subprocess.run(["umount", interface], check=True)


async def test_a_profile_confines_and_unconfined_does_not(host: Host, profile: str) -> None:
    script = "cat /proc/self/attr/current; echo x > /secret && echo written"
    confined = await host.run(script, security=Security(apparmor=profile))
    assert confined.out.split() == ["swarmd-test", "(enforce)"], confined
    assert "Permission denied" in confined.err
    free = await host.run(script, security=Security(apparmor="unconfined"))
    assert free.out.split() == ["unconfined", "written"], free


async def test_a_profile_that_is_not_loaded_is_refused_by_name(host: Host) -> None:
    with pytest.raises(RuntimeFault, match="swarmd-none"):
        await asyncio.wait_for(host.run("true", security=Security(apparmor="swarmd-none")), 30)
