"""What /info says of a host is what its files say."""

from pathlib import Path

import pytest

from swarmd.agent.api.host_facts import facts, file_system
from tests.agent.api.conftest import Api

MOUNTINFO = r"""22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
23 22 0:20 / /var/lib/a\040b rw - tmpfs tmpfs rw
24 23 8:2 / /var/lib/a\040b/data rw - tmpfs tmpfs rw
25 24 8:2 / /var/lib/a\040b/data rw - xfs /dev/sdb rw
26 22 0:21 / /var/lib/a\040b/database rw - btrfs /dev/sdc rw
"""


def host(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_limits_are_those_of_the_controllers_that_are_there(tmp_path: Path) -> None:
    old = host(tmp_path / "old", dict.fromkeys(("memory/memory.limit_in_bytes", "cpu/cpu.shares", "pids/tasks"), ""))
    found = facts(tmp_path, old)
    assert {key for key, value in found.items() if value is True} - {"IPv4Forwarding"} == {
        *("MemoryLimit", "CPUShares", "PidsLimit")
    }
    assert (found["CgroupVersion"], len(found["Warnings"])) == ("1", 3)
    new = host(tmp_path / "new", {"cgroup.controllers": "cpu io memory", "g/memory.max": "", "g/memory.swap.max": ""})
    found = facts(tmp_path, new)
    assert (found["CgroupVersion"], found["SwapLimit"], found["CPUSet"], found["CpuCfsQuota"]) == (
        "2",
        True,
        False,
        True,
    )
    assert (found["OomKillDisable"], found["PidsLimit"]) == (False, False)
    (new / "g/memory.swap.max").unlink()
    assert facts(tmp_path, new)["SwapLimit"] is False


def test_settings_of_the_kernel_and_the_file_system_of_the_data(tmp_path: Path) -> None:
    proc = host(tmp_path, {"self/mountinfo": MOUNTINFO, "sys/net/ipv4/ip_forward": "0\n", "self/ns/cgroup": ""})
    found = facts(Path("/var/lib/a b/data/swarmd"), proc=proc)
    assert found["DriverStatus"] == [["Backing Filesystem", "xfs"]]
    assert (found["IPv4Forwarding"], found["SecurityOptions"]) == (False, ["name=cgroupns"])
    assert file_system(Path("/var/lib/other"), proc) == "ext4"


async def test_info_names_the_proxies_without_their_passwords(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3129")
    monkeypatch.setenv("NO_PROXY", "localhost,.inside")
    async with api.http.get("http://d/events"):
        _, found = await api.call("GET", "/info")
    assert isinstance(found, dict)
    shown = [found[key] for key in ("HttpProxy", "HttpsProxy", "NoProxy", "NEventsListener")]
    assert shown == ["http://xxxxx:xxxxx@proxy:3128", "proxy:3129", "localhost,.inside", 1]
