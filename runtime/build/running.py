"""What one RUN is run with: its command, its mounts, its limits."""

import os
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

from swarmd.runtime.build import agents, effects, mounts, trees
from swarmd.runtime.build.dockerfile.instructions import Run
from swarmd.runtime.build.faults import WrongWord
from swarmd.runtime.build.interfaces import AnyStage
from swarmd.runtime.build.mounts import RunMount
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.model import BindMount, ContainerConfig, Mount, Security, TmpfsMount

_AGENT = "/run/buildkit/ssh_agent"
_SCRIPT = "/run/.swarmd-build-script"


def command_of(one: Run, config: ImageConfig) -> tuple[str, ...]:
    """The shell's line has the texts that stand below it as the shell reads them, unless they are all of it."""
    if not one.in_shell:
        return one.words
    line = one.words[0]
    texts = one.line.heredocs
    if len(texts) == 1 and line.strip() == texts[0].word:
        if texts[0].content.startswith("#!"):
            return (_SCRIPT,)
        return effects.argv(config, (texts[0].content,), True)
    whole = line + "".join(f"\n{text.content}{text.name}" for text in texts)
    return effects.argv(config, (whole,), True)


class Prepared:
    """keys: what its mounts come to, for the cache's key."""

    def __init__(self, run: AnyStage, one: Run, asked: list[RunMount], held: AsyncExitStack) -> None:
        self._run, self._one, self._asked, self._held = run, one, asked, held
        self.keys: list[Any] = []
        self._trees: dict[int, tuple[trees.Tree, list[trees.Placed]]] = {}

    async def look(self) -> None:
        for number, mount in enumerate(self._asked):
            key: list[Any] = [mount.type, mount.target, mount.id, mount.env, mount.from_, mount.source]
            if mount.type == "bind":
                tree = await self._source(mount)
                source = mount.source if mount.source.strip("/.") else ""
                placed = trees.choose(tree, trees.Choice((source,), "/", owned=bool(mount.from_)))
                self._trees[number] = (tree, placed)
                key.append(trees.digest(placed))
            self.keys.append(key)

    async def _source(self, mount: RunMount) -> trees.Tree:
        if not mount.from_:
            return self._run.build.context
        return await self._run.tree_of(mount.from_, [mount.source.strip("/")])

    async def config(self, argv: tuple[str, ...], env: Mapping[str, str]) -> ContainerConfig:
        """Make what is mounted; it is held until the stack is left."""
        build, one = self._run.build, self._one
        locked = {_id(mount) for mount in self._asked if mount.type == "cache" and mount.sharing == "locked"}
        for id in sorted(locked):  # in one order for all, so that no two steps wait for one another
            await self._held.enter_async_context(build.cache.lock(id))
        found: list[Mount] = []
        variables = dict(env)
        for number, mount in enumerate(self._asked):
            match mount.type:
                case "bind":
                    found.append(await self._bound(number, mount))
                case "cache":
                    found.append(await self._cached(mount))
                case "tmpfs":
                    found.append(TmpfsMount(target=mount.target, size=mount.size, options=("exec",)))
                case "secret":
                    self._secret(mount, found, variables)
                case _:
                    await self._agent(mount, found, variables)
        if argv == (_SCRIPT,):
            found.append(self._script())
        network = one.network if one.network != "default" else build.request.network
        return ContainerConfig(
            image="",
            entrypoint=(),
            command=argv,
            env=tuple(f"{name}={value}" for name, value in variables.items()),
            network_mode="bridge" if network == "default" else network,
            mounts=tuple(found),
            extra_hosts=build.request.extra_hosts,
            limits=build.request.limits,
            shm_size=build.request.shm_size,
            ulimits=build.request.ulimits,
            security=Security(privileged=one.insecure),
            stop_timeout=0.0,
        )

    async def _bound(self, number: int, mount: RunMount) -> BindMount:
        """A copy of what is mounted, so that what is written to it is gone afterwards."""
        tree, placed = self._trees[number]
        place = self._held.enter_context(self._run.build.workshop.place())
        await self._run.build.workshop.copy(place, [], tree, placed)
        source = place / "upper"
        top = tree.entries.get(tree.resolved(mount.source))
        if top is not None and top.kind != "d":
            source = source / placed[0].place
        return BindMount(source=str(source), target=self._target(mount.target), read_only=not mount.writable)

    async def _cached(self, mount: RunMount) -> BindMount:
        build = self._run.build
        id = _id(mount)
        mode = 0o755 if mount.mode is None else mount.mode
        if mount.sharing == "private":  # the first that nobody has
            names = (f"{id} {number}" if number > 1 else id for number in count(1))
            id = next(name for name in names if not build.cache.lock(name).locked())
            await self._held.enter_async_context(build.cache.lock(id))
        path, fresh = build.cache.mount(id, mode, mount.uid, mount.gid)
        self._held.enter_context(build.cache.using(path))
        if fresh and mount.from_:
            tree = await self._run.tree_of(mount.from_, [mount.source.strip("/")])
            placed = trees.choose(tree, trees.Choice((mount.source,), "/", owned=True))
            with build.workshop.place() as place:
                (place / "upper").rmdir()
                (place / "upper").symlink_to(path)
                await build.workshop.copy(place, [], tree, placed)
        return BindMount(source=str(path), target=self._target(mount.target), read_only=not mount.writable)

    def _secret(self, mount: RunMount, found: list[Mount], env: dict[str, str]) -> None:
        id = mount.id or os.path.basename(mount.target)  # noqa: PTH119 (a path in the container)
        if not id:
            raise WrongWord("RUN --mount=type=secret needs an id or a target", "--mount=type=secret")
        content = self._run.build.request.secrets.get(id)
        if content is None:
            if mount.required:
                raise WrongWord(f"the secret {id} was not given: build with --secret id={id},src=FILE", id)
            return
        if mount.env:
            env[mount.env] = content.decode("utf-8", "surrogateescape")
        if mount.target or not mount.env:
            path = self._private(content, 0o400 if mount.mode is None else mount.mode, mount.uid, mount.gid)
            target = self._target(mount.target or f"/run/secrets/{id}")
            found.append(BindMount(source=str(path), target=target, read_only=True))

    async def _agent(self, mount: RunMount, found: list[Mount], env: dict[str, str]) -> None:
        id = mount.id or "default"
        socket = self._run.build.request.ssh.get(id)
        if socket is None:
            if mount.required:
                raise WrongWord(f"the SSH agent {id} was not given: build with --ssh {id}", id)
            return
        target = mount.target or f"{_AGENT}.{len([one for one in found if _AGENT in one.target])}"
        mode = 0o600 if mount.mode is None else mount.mode
        place, name = self._run.build.workshop.private, secrets.token_hex(8)
        ours = agents.forwarded(socket, place, name, mode, mount.uid, mount.gid)
        path = await self._held.enter_async_context(ours)
        found.append(BindMount(source=str(path), target=self._target(target)))
        env.setdefault("SSH_AUTH_SOCK", target)

    def _script(self) -> BindMount:
        content = self._one.line.heredocs[0].content.encode()
        return BindMount(source=str(self._private(content, 0o755, 0, 0)), target=_SCRIPT, read_only=True)

    def _private(self, content: bytes, mode: int, uid: int, gid: int) -> Path:
        """A file in memory, for as long as the step runs."""
        path = self._run.build.workshop.private / secrets.token_hex(8)
        path.touch(mode=0o600)
        self._held.callback(path.unlink, missing_ok=True)
        path.write_bytes(content)
        os.chown(path, uid, gid)
        path.chmod(mode)
        return path

    def _target(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._run.snapshot.config.workdir or ''}/{path}"


def _id(mount: RunMount) -> str:
    """Of a cache mount."""
    return mount.id or mount.target


async def prepare(run: AnyStage, one: Run, held: AsyncExitStack) -> Prepared:
    asked = [mounts.parse(run.word(text)) for text in one.mounts]
    prepared = Prepared(run, one, asked, held)
    await prepared.look()
    return prepared
