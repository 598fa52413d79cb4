"""Where a cluster keeps its state: in an etcd that is not the managers' own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.manager.ca.authority import Authority, Subject
from swarmd.proto.tls import new_key, signing_request
from tests.cluster.conftest import AT_ONCE, Cluster, wait_for
from tests.run import RUN

FLAGS = ("--etcd-cacert", "--etcd-cert", "--etcd-key")


@pytest.fixture(scope="module")
def hosts(image: Path) -> Iterator[Cluster]:
    """Two hosts that are in no cluster."""
    cluster = Cluster(f"s{RUN}")
    try:
        cluster.devcluster("up", "--hosts", "2", "--managers", "0")
        cluster.swarmctl("image", "import", str(image), "demo")
        yield cluster
    finally:
        cluster.devcluster("down")


def certificates(directory: Path, address: str) -> list[str]:
    """CA, certificate and key of an etcd on that address; its client shows the same."""
    authority, key = Authority.create("etcd", "test"), new_key()
    certificate = authority.certify(signing_request(key), Subject("etcd", "", "test", ("etcd",), (address,)))
    paths = [directory / name for name in ("ca.pem", "cert.pem", "key.pem")]
    for path, content in zip(paths, (authority.certificate, certificate, key), strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def test_two_managers_share_an_external_etcd(hosts: Cluster, tmp_path: Path) -> None:
    address = hosts.address("host1")
    url = f"https://{address}:12379"
    ca, certificate, key = files = certificates(tmp_path, address)
    given = [word for pair in zip(FLAGS, files, strict=True) for word in pair]

    refused = hosts.run("swarm", "init", "--etcd-endpoints", url, *given, "--advertise-addr", address)
    assert refused.returncode != 0
    assert f"external etcd does not answer at {url}" in refused.stderr, refused.stderr

    tls = f"--client-cert-auth --trusted-ca-file={ca} --cert-file={certificate} --key-file={key}"
    peer = f"https://{address}:12380"
    command = (
        f"etcd --name=x --data-dir={tmp_path}/data {tls} --listen-client-urls={url} --advertise-client-urls={url} "
        f"--listen-peer-urls={peer} --initial-advertise-peer-urls={peer} --initial-cluster=x={peer} "
        f"--peer-auto-tls >{tmp_path}/log 2>&1 &"
    )
    hosts.on("host1", "sh", "-c", command)
    wait_for(lambda: "ready to serve client requests" in (tmp_path / "log").read_text(), "etcd")

    hosts.swarmctl("swarm", "init", "--etcd-endpoints", url, *given, "--advertise-addr", address)
    token = hosts.swarmctl("swarm", "join-token", "-q", "manager")
    hosts.swarmctl("swarm", "join", "--token", token, f"{address}:2377",
                   "--advertise-addr", hosts.address("host2"), host="host2")  # fmt: skip
    running = [command for host in ("host1", "host2") for command in hosts.processes(host).values()]
    assert sum(command.startswith("etcd ") for command in running) == 1

    hosts.swarmctl("service", "create", "--name", "web", "--constraint", "node.hostname==host1", *AT_ONCE,
                   "demo", "sleep", "1000")  # fmt: skip
    hosts.converged("web", 1, host="host2")
    hosts.swarmctl("service", "scale", "web=2", host="host2")
    hosts.converged("web", 2)
    assert "-----BEGIN" not in json.dumps(hosts.api().inspect_swarm()["Spec"])

    hosts.swarmctl("node", "demote", "host2")
    wait_for(lambda: "ManagerStatus" not in hosts.nodes()["host2"], "demoted host2")
    wait_for(lambda: not hosts.api("host2").info()["Swarm"]["ControlAvailable"], "worker on host2")
    identity = Path(hosts.socket("host2").removeprefix("unix://")).parents[1] / "data/cluster/identity.pb"
    assert url.encode() not in identity.read_bytes()
    hosts.swarmctl("service", "rm", "web")
