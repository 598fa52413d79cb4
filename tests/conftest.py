"""Tests that really make containers, networks and clusters must leave the machine as they found it."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run import RUN

PATIENCE = 15.0  # s: the kernel takes network namespaces apart in its own time
# Nothing is compiled anew in each of the hundreds of processes that tests start, nor in the next run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
OURS = ("swarmd", "etcd", "dc-host", "devcluster")  # names in our processes; a cgroup of a test has the run's name

# A shell has what it starts in the background ignore Ctrl-C, which processes of tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: looking at all of it again and again took seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the machine before and after a file of root tests."""
    markers = {mark.name for item in request.session.items if item.path == request.path for mark in item.iter_markers()}
    if not markers & {"root", "cluster"}:
        yield
        return
    before = machine()
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := machine() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"left behind: {sorted(left)}"


def machine() -> set[str]:
    """Every mount, interface, nft table, cgroup and process of ours, as a line each."""
    return {*mounts(), *interfaces(), *tables(), *cgroups(), *processes()}


def mounts() -> set[str]:
    return {f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def interfaces() -> set[str]:
    """Of our own network namespace: /sys shows those of whoever mounted it."""
    return {f"interface {name}" for _, name in socket.if_nameindex()}


def tables() -> set[str]:
    done = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=False)
    listed = json.loads(done.stdout or "{}").get("nftables", [])
    return {f"nft table {entry['table']['name']}" for entry in listed if "table" in entry}


def cgroups() -> set[str]:
    """Two levels below the controllers: what tests make has a parent of its own, in cgroup v2 beside them."""
    found = set()
    for top in Path("/sys/fs/cgroup").iterdir():
        if top.is_dir():
            found |= {f"cgroup {path}" for path in (top, *top.glob("*/"), *top.glob("*/*/"))}
    return {line for line in found if RUN in line}


def processes() -> set[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            comm = (entry / "comm").read_text().strip()
        except OSError:
            continue
        line = f"{comm} {b' '.join(words[:4]).decode(errors='replace')}"
        if any(name in line for name in OURS) and "pytest" not in line:
            found.add(f"process {entry.name} {line}")
    return found
