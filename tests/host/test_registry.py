"""A daemon, a registry with TLS and a password, and other tools' images: what users do with them, end to end."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.host.engine_host import rootfs_tar
from tests.host.leavings import taken_away
from tests.registry.authorities import Authority
from tests.registry.distribution import PASSWORD, USER, password_file, registry
from tests.run import RUN

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and cgroups"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
]
needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
needs_podman = pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed")
NAME = "registry.test"  # not on the loopback interface by its name, so its certificate is checked
PATIENCE = 20.0  # s


@dataclass(frozen=True)
class Node:
    """host: of the registry; trusted: the directory that --registry-certs names."""

    socket: Path
    root: Path
    host: str
    trusted: Path
    authority: Path

    def said(self, *words: str, code: int = 0, stdin: bytes = b"") -> str:
        """What a command prints, in both streams: `docker ...`, `swarmctl ...` or another."""
        programs = {
            "docker": ["docker", "--config", str(self.root / "docker"), "-H", f"unix://{self.socket}"],
            "swarmctl": [sys.executable, "-m", "swarmd.swarmctl.main", "-H", f"unix://{self.socket}"],
        }
        command = [*programs.get(words[0], [words[0]]), *words[1:]]
        env = {**os.environ, "DOCKER_CONFIG": str(self.root / "docker")}
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=100, env=env)
        text = (done.stdout + done.stderr).decode()
        assert done.returncode == code, f"{words}: {text}"
        return text

    def id(self, image: str) -> str:
        return self.said("docker", "image", "inspect", "-f", "{{.Id}}", image).strip()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """NAME is this host, as long as these tests run and for whoever is in their mount namespace."""
    file = tmp_path_factory.mktemp("hosts") / "hosts"
    file.write_text(f"127.0.0.1 localhost {NAME}\n")
    subprocess.run(["mount", "--bind", file, "/etc/hosts"], check=True)
    yield
    subprocess.run(["umount", "/etc/hosts"], check=True)


@pytest.fixture(scope="module")
def node(hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    root = tmp_path_factory.mktemp("node")
    authority = Authority(root)
    certificate = authority.issue(root, "server", NAME)
    with registry(root / "registry", certificate, password_file(root / "registry")) as address, taken_away():
        host = f"{NAME}:{address.rpartition(':')[2]}"
        trusted, socket = root / "certs.d", Path(f"/tmp/swarmd-test-{RUN}-registry.sock")
        (trusted / host).mkdir(parents=True)
        (trusted / host / "ca.crt").write_bytes(authority.path.read_bytes())
        with (root / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "swarmd.agent.main", "--cgroup-parent", f"st-{RUN}-registry"),
                    *("--data-root", str(root / "data"), "--run-root", str(root / "run"), "-H", f"unix://{socket}"),
                    *("--registry-certs", str(trusted)),
                ],
                stdout=log,
                stderr=log,
            )
        node = Node(socket, root, host, trusted, authority.path)
        try:
            _ready(node, process)
            node.said("docker", "import", "-c", 'CMD ["sh"]', "-", "busybox", stdin=rootfs_tar())
            yield node
        finally:
            for id in _listed(socket):
                subprocess.run(["docker", "-H", f"unix://{socket}", "rm", "-f", id], check=False, capture_output=True)
            process.terminate()
            process.wait(20)
            _remove_groups(f"st-{RUN}-registry")
            socket.unlink(missing_ok=True)
            shutil.rmtree(root)


def _ready(node: Node, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE
    while b"ready" not in (log := (node.root / "log").read_bytes()):
        assert process.poll() is None and time.monotonic() < deadline, log.decode()
        time.sleep(0.02)


def _listed(socket: Path) -> list[str]:
    words = ["docker", "-H", f"unix://{socket}", "ps", "-aq"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


def _remove_groups(name: str) -> None:
    for group in sorted(Path("/sys/fs/cgroup").glob(f"**/{name}"), reverse=True):
        for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            path.rmdir()
        group.rmdir()


@pytest.fixture
def logged_in(node: Node) -> Iterator[Node]:
    node.said("docker", "login", "-u", USER, "--password-stdin", node.host, stdin=PASSWORD.encode())
    yield node
    node.said("docker", "logout", node.host)


@needs_docker
def test_a_registry_with_a_certificate_and_a_password(logged_in: Node) -> None:
    node, image = logged_in, f"{logged_in.host}/team/busybox:1"
    id = node.id("busybox")
    node.said("docker", "tag", "busybox", image)
    assert f"1: digest: {id}" in node.said("docker", "push", image)
    node.said("docker", "rmi", image)
    # It isn't here: the client has it pulled, and then runs it.
    assert "up\n" in node.said("docker", "run", "--rm", "--network", "none", image, "echo", "up")
    assert node.id(image) == id
    node.said("docker", "rmi", image)
    assert "up\n" in node.said("swarmctl", "run", "--rm", "--network", "none", image, "echo", "up")
    assert id in node.said("docker", "images", "--digests", "--format", "{{.Digest}}")
    by_digest = f"{node.host}/team/busybox@{id}"
    node.said("docker", "rmi", image)
    assert f"Digest: {id}" in node.said("docker", "pull", by_digest)
    node.said("docker", "rmi", by_digest)
    assert json.loads(node.said("swarmctl", "manifest", "inspect", image))["layers"]


@needs_docker
def test_without_a_login_or_trust_it_is_refused_in_a_sentence(node: Node) -> None:
    image = f"{node.host}/team/busybox:1"
    refused = node.said("docker", "pull", image, code=1)
    assert (node.host in refused and "denied" in refused.lower()) or "log in" in refused.lower(), refused
    wrong = node.said("docker", "login", "-u", USER, "-p", "wrong", node.host, code=1)
    assert node.host in wrong
    place = node.trusted / node.host / "ca.crt"
    kept = place.read_bytes()
    place.unlink()
    try:
        assert "not trusted" in (said := node.said("swarmctl", "pull", image, code=1)) and "ca.crt" in said, said
    finally:
        place.write_bytes(kept)
    assert image not in node.said("docker", "images")


@needs_skopeo
@needs_docker
def test_a_registry_holds_for_skopeo_what_was_pushed(logged_in: Node) -> None:
    node, image = logged_in, f"{logged_in.host}/skopeo/busybox:1"
    node.said("docker", "tag", "busybox", image)
    node.said("swarmctl", "push", "-q", image)
    reach = ("--cert-dir", str(node.trusted / node.host), "--creds", f"{USER}:{PASSWORD}")
    seen = json.loads(node.said("skopeo", "inspect", *reach, f"docker://{image}"))
    assert seen["Digest"] == node.id("busybox") and seen["Architecture"]
    there = f"{node.host}/skopeo/copied:1"
    source, target = (f"--{side}-{what}" for side in ("src", "dest") for what in ("creds",))
    node.said(
        "skopeo", "copy", "-q", source, f"{USER}:{PASSWORD}", target, f"{USER}:{PASSWORD}",
        "--src-cert-dir", reach[1], "--dest-cert-dir", reach[1], "--format", "v2s2",
        f"docker://{image}", f"docker://{there}",
    )  # fmt: skip
    node.said("docker", "pull", "-q", there)  # of Docker's schema 2, compressed
    assert "up\n" in node.said("docker", "run", "--rm", "--network", "none", there, "echo", "up")


@needs_skopeo
@needs_docker
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives_are_exchanged_with_skopeo(node: Node, tmp_path: Path, form: str) -> None:
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    node.said("docker", "save", "-o", str(ours), "busybox:latest")
    suffix = ":docker.io/library/busybox:latest" if form == "docker-archive" else ":latest"
    node.said("skopeo", "copy", "-q", f"{form}:{ours}{suffix}", f"dir:{tmp_path}/dir")
    config = json.loads((tmp_path / "dir/manifest.json").read_text())["config"]["digest"]
    store = node.root / "data/images/blobs/sha256"
    manifest = json.loads((store / node.id("busybox")[7:]).read_text())
    assert config == manifest["config"]["digest"]
    node.said("skopeo", "copy", "-q", f"dir:{tmp_path}/dir", f"{form}:{theirs}:docker.io/library/{form}:1")
    assert "Loaded image" in node.said("docker", "load", "-i", str(theirs))
    assert "up\n" in node.said("docker", "run", "--rm", "--network", "none", f"{form}:1", "echo", "up")
    node.said("docker", "rmi", f"{form}:1")


@needs_podman
@needs_docker
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives_are_exchanged_with_podman(node: Node, tmp_path: Path, form: str) -> None:
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    run = Path(f"/tmp/pm-{RUN}")  # podman takes no longer path
    podman = ("podman", "--root", f"{tmp_path}/root", "--runroot", str(run), "--storage-driver", "vfs")
    node.said("swarmctl", "save", "-o", str(ours), "busybox")
    assert "Loaded image" in node.said(*podman, "load", "-q", "-i", str(ours))
    node.said(*podman, "tag", "docker.io/library/busybox:latest", f"docker.io/library/podman-{form}:1")
    node.said(*podman, "save", "-q", "--format", form, "-o", str(theirs), f"docker.io/library/podman-{form}:1")
    assert "Loaded image" in node.said("swarmctl", "load", "-i", str(theirs))
    assert "up\n" in node.said("docker", "run", "--rm", "--network", "none", f"podman-{form}:1", "echo", "up")
    node.said("docker", "rmi", f"podman-{form}:1")
    node.said(*podman, "rmi", "-a", "-f")
    shutil.rmtree(run)


@needs_docker
def test_nothing_is_left_of_what_was_removed(node: Node) -> None:
    before = node.said("docker", "system", "df", "--format", "{{.Type}} {{.Size}}")
    content = hashlib.sha256(os.urandom(8)).hexdigest().encode() * 1000
    (node.root / "f").write_bytes(content)
    node.said("sh", "-c", f"cd {node.root} && tar c f | docker -H unix://{node.socket} import - extra")
    assert node.said("docker", "system", "df", "--format", "{{.Type}} {{.Size}}") != before
    node.said("docker", "rmi", "extra")
    assert node.said("docker", "system", "df", "--format", "{{.Type}} {{.Size}}") == before
