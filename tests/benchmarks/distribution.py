"""An image that one node of a cluster has, brought to one and to eight other nodes over links of 100 Mbit/s.

Every host is a set of namespaces with a link of its own, slowed down in both directions by tc-tbf(8).
"""

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from tests.benchmarks.table import Row, Sample
from tests.cluster.conftest import Cluster, wait_for
from tests.run import RUN

NODES = 8
SIZE = 100_000_000  # bytes
RATE = "100mbit"


def distribution(work: Path, peers: Sequence[str], rounds: int) -> list[Row]:
    """Each round brings two new images: one to a single node, the other to all eight at once."""
    one, eight, copies = [], [], []
    with _capped_cluster() as cluster:
        others = [f"host{number}" for number in range(2, NODES + 2)]
        for number in range(rounds):
            one.append(_brought(cluster, work, f"one:{number}", others[number % NODES : number % NODES + 1])[0])
            took, sent = _brought(cluster, work, f"eight:{number}", others)
            eight.append(took)
            copies.append(sent / SIZE)
    return [
        Row("image of 100 MB to 8 nodes at 100 Mbit/s", "s", Sample(eight), "1 node", Sample(one), target_ratio=2.0),
        Row("copies that leave the origin for 8 nodes", "copies", Sample(copies), target=2.0),
    ]


def _brought(cluster: Cluster, work: Path, name: str, nodes: Sequence[str]) -> tuple[float, int]:
    """Seconds, and bytes that left the origin meanwhile."""
    archive = work / "image.tar"
    _write(archive)
    cluster.swarmctl("image", "import", str(archive), name)
    archive.unlink()
    before, began = _sent(cluster), time.monotonic()
    cluster.swarmctl("image", "pull", "--quiet", "--nodes", ",".join(nodes), name, timeout=300)
    took = time.monotonic() - began
    sent = _sent(cluster) - before
    for host in ("host1", *nodes):
        cluster.swarmctl("image", "rm", "--force", name, host=host)
    return took, sent


def _write(path: Path) -> None:
    """A root file system of bytes that can't be compressed."""
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("content")
        entry.size = SIZE
        archive.addfile(entry, BytesIO(os.urandom(SIZE)))


def _sent(cluster: Cluster) -> int:
    (link,) = json.loads(cluster.on("host1", "ip", "-s", "-j", "link", "show", "eth0"))
    return int(link["stats64"]["tx"]["bytes"])


@contextmanager
def _capped_cluster() -> Iterator[Cluster]:
    cluster = Cluster(f"b{RUN}")
    cluster.devcluster("down")
    try:
        cluster.devcluster("up", "--hosts", str(NODES + 1), "--managers", "1", timeout=300)
        shape = ("root", "tbf", "rate", RATE, "burst", "128kb", "latency", "50ms")
        for number in range(1, NODES + 2):
            cluster.on(f"host{number}", "tc", "qdisc", "add", "dev", "eth0", *shape)
            link = f"dc-b{RUN}"[:11] + f"-{number}"
            subprocess.run(["tc", "qdisc", "add", "dev", link, *shape], check=True, timeout=20)
        wait_for(
            lambda: sum(n["Status"]["State"] == "ready" for n in cluster.nodes().values()) == NODES + 1, "ready nodes"
        )
        yield cluster
    finally:
        cluster.devcluster("down", timeout=300)


FIGURES = {"distribution": distribution}
