"""Image, registry and manifest commands as users run them, over an engine in memory and Debian's docker-registry."""

import asyncio
import base64
import json
import os
import pty
import re
import stat
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.runtime.images.making import import_rootfs
from swarmd.runtime.images.manifests import Platform
from swarmd.swarmctl.client import Refusal
from swarmd.swarmctl.references import domain, in_full, split
from tests.agent.api.conftest import Api
from tests.agent.api.test_images import ROOTFS, SECOND, add, chunks
from tests.registry.distribution import PASSWORD, USER, password_file, registry
from tests.runtime.images.tars import entry, tar
from tests.swarmctl.conftest import Run
from tests.swarmctl.program import SWARMCTL


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("plain")) as host:
        yield host


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("guarded")
    with registry(directory, auth=password_file(directory)) as host:
        yield host


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logins are kept."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("SWARMCTL_CONFIG", str(tmp_path / "swarmctl"))
    return tmp_path / "docker/config.json"


@pytest.mark.parametrize(
    ("name", "host", "full", "parts"),
    [
        ("demo", "docker.io", "docker.io/library/demo:latest", ("demo", "")),
        ("team/demo:1", "docker.io", "docker.io/team/demo:1", ("team/demo", "1")),
        ("docker.io/demo", "docker.io", "docker.io/library/demo:latest", ("docker.io/demo", "")),
        ("host:5000/a", "host:5000", "host:5000/a:latest", ("host:5000/a", "")),
        ("localhost/a/b:2", "localhost", "localhost/a/b:2", ("localhost/a/b", "2")),
        ("h.example/a@sha256:12", "h.example", "h.example/a@sha256:12", ("h.example/a", "sha256:12")),
    ],
)
def test_names(name: str, host: str, full: str, parts: tuple[str, str]) -> None:
    assert (domain(name), in_full(name), split(name)) == (host, full, parts)


def test_a_name_with_two_tags_is_none() -> None:
    with pytest.raises(Refusal, match="'a:b:c' is not valid"):
        split("a:b:c")


async def test_listings(api: Api, swarmctl: Run) -> None:
    image = await add(api, "demo:1", "reg.example:5000/other:2", layers=(ROOTFS, SECOND), Labels={"a": "b"})
    nameless = await add(api, layers=(SECOND,))
    out = (await swarmctl("images")).out.splitlines()
    assert out[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert {tuple(line.split()[:3]) for line in out[1:]} == {
        ("demo", "1", image.id[7:19]),
        ("reg.example:5000/other", "2", image.id[7:19]),
        ("<none>", "<none>", nameless.id[7:19]),
    }
    assert (await swarmctl("image", "ls", "-q", "--no-trunc", "demo")).out == f"{image.id}\n"
    assert (await swarmctl("images", "-f", "label=a=b", "--format", "{{.Repository}}:{{.Tag}}")).out.splitlines() == [
        *("demo:1", "reg.example:5000/other:2")
    ]
    assert image.id in (await swarmctl("images", "--digests", "demo")).out
    tree = (await swarmctl("images", "--tree", "demo")).out
    assert "└─ linux/amd64" in tree and "DISK USAGE" in tree
    assert tree == (await swarmctl("image", "tree", "demo")).out
    assert "sha256" in (await swarmctl("image", "inspect", "-f", "{{.Id}}", "demo:1")).out
    both = await swarmctl("image", "inspect", "demo:1", "nosuch")
    assert both.code == 1 and "No such image: nosuch" in both.err and image.id in both.out
    assert (await swarmctl("image", "inspect", "--platform", "linux/s390x", "demo:1")).code == 1
    assert (await swarmctl("history", "-q", "demo:1")).out.split()[0] == image.id[7:19]
    assert "SIZE" in (await swarmctl("history", "demo:1")).out


async def test_names_are_given_and_images_removed(api: Api, swarmctl: Run) -> None:
    image = await add(api, "demo:1")
    assert (await swarmctl("tag", "demo:1", "team/two")).code == 0
    assert (await swarmctl("rmi", "team/two")).out == "Untagged: team/two:latest\n"
    gone = await swarmctl("image", "rm", "nosuch", "demo:1")
    assert gone.code == 1 and f"Deleted: {image.id}" in gone.out and "nosuch" in gone.err
    await add(api, layers=(SECOND,))
    kept = await add(api, "kept:1")
    pruned = await swarmctl("image", "prune", "-f")
    assert "deleted: sha256:" in pruned.out and "Total reclaimed space: " in pruned.out
    assert [found.id for found in api.engine.images.list()] == [kept.id]
    assert (await swarmctl("image", "prune", "-a", stdin=b"n\n")).code == 1
    assert "untagged: kept:1" in (await swarmctl("image", "prune", "-a", stdin=b"y\n")).out


async def test_a_forced_removal_of_nothing_is_no_failure(api: Api, swarmctl: Run) -> None:
    gone = await swarmctl("rmi", "-f", "nosuch")
    assert gone.code == 0 and "No such image: nosuch" in gone.err


async def test_names_that_no_image_can_have(api: Api, swarmctl: Run) -> None:
    await add(api, "demo:1")
    for name in ("a:b:c", "BAD", f"a@sha256:{'0' * 64}", ""):
        refused = await swarmctl("tag", "demo:1", name)
        assert refused.code == 1 and refused.err, name
    assert "digest" in (await swarmctl("tag", "demo:1", f"a@sha256:{'0' * 64}")).err
    assert (await swarmctl("import", "-", "a:b:c", stdin=ROOTFS)).code == 1
    assert [image.refs for image in api.engine.images.list()] == [("docker.io/library/demo:1",)]


async def test_a_history_with_exact_times(api: Api, swarmctl: Run) -> None:
    await import_rootfs(api.engine.images, chunks(ROOTFS), ("made:1",))
    out = (await swarmctl("history", "--human=false", "made:1")).out
    assert "CREATED AT" in out and re.search(r"\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) ", out), out


async def test_what_an_image_says_moves_no_cursor(api: Api, swarmctl: Run) -> None:
    await import_rootfs(api.engine.images, chunks(ROOTFS), ("made:1",), message="evil\33[2J\x9b1m")
    assert "evil?[2J?1m" in (await swarmctl("history", "made:1")).out


async def test_archives(api: Api, swarmctl: Run, tmp_path: Path) -> None:
    image = await add(api, "demo:1")
    file = tmp_path / "demo.tar"
    assert (await swarmctl("save", "-o", str(file), "demo:1")).code == 0
    failed = await swarmctl("save", "-o", str(tmp_path / "no.tar"), "nosuch")
    assert failed.code == 1 and [path.name for path in tmp_path.glob("*.tar*")] == ["demo.tar"]
    await swarmctl("rmi", "demo:1")
    assert "Loaded image: demo:1\n" in (await swarmctl("load", "-i", str(file))).out
    assert (await swarmctl("load", "-q", stdin=file.read_bytes())).out == "Loaded image: demo:1\n"
    bad = await swarmctl("load", stdin=b"nonsense")
    assert bad.code == 1 and "swarmctl: " in bad.err
    made = await swarmctl("import", "-c", "CMD sh", "-m", "why", "-", "root:1", stdin=ROOTFS)
    assert made.out.strip() == api.engine.images.get("root:1").id != image.id
    await api.call("POST", "/containers/create?name=web", {"Image": "root:1"})
    committed = await swarmctl("commit", "-a", "me", "-m", "done", "-c", "ENV A=1", "web", "new:1")
    assert committed.out.strip() == api.engine.images.get("new:1").id
    assert api.engine.images.get("new:1").config.env == ("A=1",)


async def test_push_and_pull(api: Api, swarmctl: Run, plain: str) -> None:
    image = await add(api, f"{plain}/ctl:latest", layers=(ROOTFS, SECOND))
    pushed = await swarmctl("push", f"{plain}/ctl")
    assert pushed.out.startswith("Using default tag: latest\nThe push refers to repository")
    assert f"latest: digest: {image.id} size: " in pushed.out and ": Pushed\n" in pushed.out
    await swarmctl("rmi", f"{plain}/ctl")
    pulled = await swarmctl("pull", f"{plain}/ctl")
    assert "Pull complete" in pulled.out and pulled.out.endswith(f"\n{plain}/ctl:latest\n")
    assert "Downloading" not in pulled.out
    assert (await swarmctl("pull", "-q", f"{plain}/ctl")).out == f"{plain}/ctl:latest\n"
    assert (await swarmctl("push", "-q", f"{plain}/ctl")).out == f"{plain}/ctl:latest\n"
    assert (await swarmctl("pull", "-a", "-q", f"{plain}/ctl")).out == f"{plain}/ctl\n"
    refused = await swarmctl("pull", f"{plain}/nosuch")
    assert refused.code == 1 and f"{plain}/nosuch" in refused.err
    assert (await swarmctl("pull", "-a", f"{plain}/ctl:1")).code == 1
    assert "ctl" in (await swarmctl("search", f"{plain}/ctl")).out
    assert (await swarmctl("search", "--format", "{{.Name}}", f"{plain}/ct")).out == "ctl\n"
    await swarmctl("rmi", f"{plain}/ctl")
    assert (await swarmctl("create", "--pull", "never", f"{plain}/ctl", "sh")).code == 125
    made = await swarmctl("create", f"{plain}/ctl", "sh")
    assert made.code == 0 and "Pull complete" in made.err and len(made.out) == 65
    again = await swarmctl("create", "--pull", "always", f"{plain}/ctl", "sh")
    assert "Image is up to date" in again.err


async def test_an_image_of_another_platform_is_pulled_for_a_container(api: Api, swarmctl: Run, plain: str) -> None:
    for architecture in ("arm64", "amd64"):
        platform = Platform(os="linux", architecture=architecture)
        await import_rootfs(api.engine.images, chunks(ROOTFS), (f"{plain}/cross:1",), platform=platform)
        if architecture == "arm64":
            await swarmctl("push", "-q", f"{plain}/cross:1")
    assert (
        await swarmctl("create", "--pull", "never", "--platform", "linux/arm64", f"{plain}/cross:1", "x")
    ).code == 125
    made = await swarmctl("create", "--platform", "linux/arm64", f"{plain}/cross:1", "x")
    assert made.code == 0, made.err
    assert api.engine.images.get(f"{plain}/cross:1").architecture == "arm64"


async def test_a_terminal_shows_layers_in_place(api: Api, swarmctl: Run, plain: str) -> None:
    image = await add(api, f"{plain}/tty:1", layers=(ROOTFS, SECOND))
    await swarmctl("push", f"{plain}/tty:1")
    await swarmctl("rmi", f"{plain}/tty:1")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    os.set_blocking(ours, False)
    process = await asyncio.create_subprocess_exec(
        *(*SWARMCTL, "-H", f"unix://{api.socket}", "pull", f"{plain}/tty:1"),
        stdout=theirs,
    )
    assert await process.wait() == 0
    os.close(theirs)
    text = os.read(ours, 1 << 20).decode()
    os.close(ours)
    assert "Status: Downloaded newer image" in text
    for blob in image.variant.blobs:
        assert f"{blob.digest[7:19]}: Pull complete" in text


async def test_logins_are_kept_as_dockers(api: Api, swarmctl: Run, guarded: str, config: Path) -> None:
    await add(api, f"{guarded}/secret:1")
    refused = await swarmctl("push", f"{guarded}/secret:1")
    assert refused.code == 1 and guarded in refused.err
    wrong = await swarmctl("login", "-u", USER, "--password-stdin", guarded, stdin=b"wrong")
    assert wrong.code == 1 and not config.exists()
    config.parent.mkdir()
    config.write_text('{"HttpHeaders": {"X": "y"}, "auths": {"other": {"auth": "YTpi"}}}')
    done = await swarmctl("login", "-u", USER, "--password-stdin", guarded, stdin=f"{PASSWORD}\n".encode())
    assert (done.code, done.out) == (0, "Login Succeeded\n")
    kept = json.loads(config.read_text())
    assert kept["HttpHeaders"] == {"X": "y"} and {*kept["auths"]} == {"other", guarded}
    assert base64.b64decode(kept["auths"][guarded]["auth"]).decode() == f"{USER}:{PASSWORD}"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert (await swarmctl("push", "-q", f"{guarded}/secret:1")).code == 0
    await swarmctl("rmi", f"{guarded}/secret:1")
    assert (await swarmctl("create", f"{guarded}/secret:1", "sh")).code == 0
    assert (await swarmctl("login", guarded)).out == "Login Succeeded\n"  # with what is kept
    assert f"Removed the login at {guarded}" in (await swarmctl("logout", guarded)).out
    assert {*json.loads(config.read_text())["auths"]} == {"other"}
    assert (await swarmctl("pull", f"{guarded}/secret:1")).code == 1
    config.write_text("{")
    broken = await swarmctl("pull", f"{guarded}/secret:1")
    assert broken.code == 1 and str(config) in broken.err


HELPER = """#!/bin/sh
# Keeps one login in a file.
case $1 in
store) cat > {file} ;;
get) read server; test -f {file} || {{ echo credentials not found in native keychain; exit 1; }}; cat {file} ;;
erase) rm -f {file} ;;
esac
"""


@pytest.mark.parametrize("how", ["credsStore", "credHelpers"])
async def test_logins_with_a_helper(
    api: Api, swarmctl: Run, guarded: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    program, kept = tmp_path / "bin/docker-credential-test", tmp_path / "kept"
    program.parent.mkdir()
    program.write_text(HELPER.format(file=kept))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    config.parent.mkdir()
    config.write_text(json.dumps({how: "test" if how == "credsStore" else {guarded: "test"}}))
    await add(api, f"{guarded}/helped:1")
    assert (await swarmctl("push", f"{guarded}/helped:1")).code == 1
    done = await swarmctl("login", "-u", USER, "--password-stdin", guarded, stdin=PASSWORD.encode())
    assert done.code == 0, done.err
    assert PASSWORD not in config.read_text()
    assert json.loads(kept.read_text()) == {"ServerURL": guarded, "Username": USER, "Secret": PASSWORD}
    assert (await swarmctl("push", "-q", f"{guarded}/helped:1")).code == 0
    await swarmctl("logout", guarded)
    assert not kept.exists()
    program.unlink()
    gone = await swarmctl("push", f"{guarded}/helped:1")
    assert gone.code == 1 and "docker-credential-test cannot be run" in gone.err


async def test_manifest_lists(api: Api, swarmctl: Run, plain: str) -> None:
    images = {}
    for name in ("amd64", "arm64"):
        content = chunks(tar(entry("arch", name.encode())))
        images[name] = await import_rootfs(
            api.engine.images, content, (f"{plain}/{name}:1",), platform=Platform(os="linux", architecture=name)
        )
        await swarmctl("push", f"{plain}/{name}:1")
    made = await swarmctl("manifest", "create", f"{plain}/multi:1", f"{plain}/amd64:1", f"{plain}/arm64:1")
    assert made.out == f"Created manifest list {plain}/multi:1\n", made.err
    assert (await swarmctl("manifest", "create", f"{plain}/multi:1", f"{plain}/amd64:1")).code == 1
    assert (await swarmctl("manifest", "create", "-a", f"{plain}/multi:1", f"{plain}/amd64:1")).code == 0
    annotated = await swarmctl("manifest", "annotate", "--variant", "v8", f"{plain}/multi:1", f"{plain}/arm64:1")
    assert annotated.code == 0, annotated.err
    here = json.loads((await swarmctl("manifest", "inspect", f"{plain}/multi:1")).out)
    assert [one["platform"] for one in here["manifests"]] == [
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
        {"os": "linux", "architecture": "amd64"},
    ]
    pushed = await swarmctl("manifest", "push", "--purge", f"{plain}/multi:1")
    assert pushed.out.startswith("sha256:"), pushed.err
    there = json.loads((await swarmctl("manifest", "inspect", f"{plain}/multi:1")).out)
    assert there == here
    full = json.loads((await swarmctl("manifest", "inspect", "-v", f"{plain}/multi:1")).out)
    assert [one["Descriptor"]["digest"] for one in full] == [images["arm64"].id, images["amd64"].id]
    assert (await swarmctl("manifest", "rm", f"{plain}/multi:1")).code == 1  # purged
    await swarmctl("rmi", "-f", images["amd64"].id)
    assert (await swarmctl("pull", "-q", f"{plain}/multi:1")).code == 0
    image = api.engine.images.get(f"{plain}/multi:1")
    assert image.id == pushed.out.strip() and image.architecture == "amd64"
    absent = await swarmctl("manifest", "inspect", f"{plain}/nosuch:1")
    assert absent.code == 1 and f"{plain}/nosuch" in absent.err
