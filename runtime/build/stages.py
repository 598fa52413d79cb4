"""One stage as it is built: its instructions in their order, each on what the one before has left."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from difflib import get_close_matches

import msgspec

from swarmd.runtime.build import effects, trees
from swarmd.runtime.build.cache import Layer, Record, key
from swarmd.runtime.build.dockerfile import expand
from swarmd.runtime.build.dockerfile.instructions import (
    Arg,
    Command,
    Copy,
    From,
    Healthcheck,
    Instruction,
    Onbuild,
    Pairs,
    Run,
    Stage,
    Value,
    Words,
)
from swarmd.runtime.build.faults import StepFailed, WrongWord
from swarmd.runtime.build.interfaces import AnyBuild
from swarmd.runtime.build.running import Prepared, command_of, prepare
from swarmd.runtime.build.snapshots import Snapshot, timestamp
from swarmd.runtime.build.sources import Batch, gather
from swarmd.runtime.build.variables import PROXIES
from swarmd.runtime.errors import Invalid, RuntimeFault
from swarmd.runtime.images.config import ImageConfig
from swarmd.runtime.model import LogEntry
from swarmd.runtime.stages.privileges import DEFAULT_PATH

Heard = Callable[[bytes, str], None]
_TAIL = 10  # lines of a failed command's output that its error shows


class StageRun:
    """args: the values of the arguments that are declared so far."""

    def __init__(self, build: AnyBuild, stage: Stage) -> None:
        self.build, self.stage = build, stage
        self.args: dict[str, str] = {}
        self.snapshot = Snapshot(platform=build.platform_of(stage))
        self._has_cmd = False
        again = {*map(str.lower, build.request.fresh)}
        self._fresh = build.request.no_cache or bool(again & {stage.name, str(stage.index)})

    async def begin(self) -> bool:
        """FROM. Return whether the cache had it: the layer of a directory."""
        begin, build = self.stage.begin, self.build
        name, cached = self._global(begin.image), False
        if (tree := build.named.tree(name)) is not None:
            placed = trees.choose(tree, trees.Choice(("",), "/", owned=True))
            cached = await self._files("copy", begin, [Batch(tree, placed)], "", linked=True)
        elif earlier := build.graph.before(self.stage, name):
            self.snapshot = await build.stage(earlier.index)
            self.args = dict(self.snapshot.args)
        elif name != "scratch":
            try:
                self.snapshot = await build.base(name, self.snapshot.platform)
            except RuntimeFault as error:
                if hint := self._stage_hint(name):
                    raise WrongWord(f"{error}; {hint}", name) from None
                raise
        if "PATH" not in self.values():  # so that ENV PATH=/more:$PATH is what it looks like
            config = effects.env(self.snapshot.config, {"PATH": DEFAULT_PATH})
            self.snapshot = msgspec.structs.replace(self.snapshot, config=config)
        return cached

    def take_triggers(self) -> tuple[str, ...]:
        """The ONBUILD lines of the base, which are for this image and not for those made of it."""
        config = self.snapshot.config
        self.snapshot = msgspec.structs.replace(self.snapshot, config=msgspec.structs.replace(config, onbuild=()))
        return config.onbuild

    async def perform(self, one: Instruction, heard: Heard) -> bool:
        """Return whether the cache had it."""
        match one:
            case Run():
                return await self._run(one, heard)
            case Copy():
                return await self._copy(one)
            case Value() if one.line.keyword == "WORKDIR":
                return await self._workdir(one)
            case Arg():
                self._declare(one)
            case From():
                raise Invalid("FROM begins a stage")
            case _:
                self._describe(one)
        return False

    # ------------------------------------------------------------ variables

    def values(self) -> dict[str, str]:
        """What words may use; what ENV sets hides an argument."""
        env = dict(line.partition("=")[::2] for line in self.snapshot.config.env)
        return {**self.args, **env}

    def word(self, text: str) -> str:
        return expand(text, self.values(), self.build.dockerfile.escape)

    def _global(self, text: str) -> str:
        name = expand(text, self.build.globals, self.build.dockerfile.escape)
        if not name:
            raise WrongWord(f"FROM {text} comes to nothing: give the argument a default, or --build-arg", text)
        return name

    def _declare(self, one: Arg) -> None:
        build = self.build
        for argument in one.arguments:
            if argument.name in build.request.args:
                build.consumed.add(argument.name)
                self.args[argument.name] = build.request.args[argument.name]
            elif argument.value is not None:
                self.args[argument.name] = self.word(argument.value)
            elif argument.name in build.globals:
                self.args[argument.name] = build.globals[argument.name]
        self.snapshot = self.snapshot.followed(one.line.text)

    def environment(self) -> dict[str, str]:
        """Of RUN, besides what the image sets: arguments, and proxies that are given."""
        env = {line.partition("=")[0] for line in self.snapshot.config.env}
        proxies = {name: value for name, value in self.build.request.args.items() if name in PROXIES}
        return {name: value for name, value in {**proxies, **self.args}.items() if name not in env}

    # ------------------------------------------------------------ what only describes

    def _describe(self, one: Instruction) -> None:
        config = self.snapshot.config
        match one:
            case Pairs():
                pairs = {self.word(name): self.word(value) for name, value in one.pairs}
                config = effects.env(config, pairs) if one.line.keyword == "ENV" else effects.label(config, pairs)
            case Words() if one.line.keyword == "EXPOSE":
                config = effects.expose(config, (part for text in one.words for part in self.word(text).split()))
            case Words():
                config = effects.volume(config, map(self.word, one.words))
            case Command() if one.line.keyword == "SHELL":
                config = effects.shell(config, one.words)
            case Command() if one.line.keyword == "ENTRYPOINT":
                config = effects.entrypoint(config, one.words, one.in_shell, self._has_cmd)
            case Command():
                self._has_cmd = True
                config = effects.cmd(config, one.words, one.in_shell)
            case Healthcheck():
                config = effects.healthcheck(config, one)
            case Onbuild():
                config = effects.onbuild(config, one.text)
            case Value() if one.line.keyword == "USER":
                config = effects.user(config, self.word(one.value))
            case Value() if one.line.keyword == "STOPSIGNAL":
                config = effects.stop_signal(config, self.word(one.value))
            case Value():
                self.snapshot = msgspec.structs.replace(self.snapshot, author=one.value)
        self.snapshot = self.snapshot.followed(one.line.text, config=config)

    # ------------------------------------------------------------ what writes files

    async def _workdir(self, one: Value) -> bool:
        config = effects.workdir(self.snapshot.config, self.word(one.value))
        path = config.workdir.strip("/")
        if not path:
            self.snapshot = self.snapshot.followed(one.line.text, config=config)
            return False
        entry = trees.Entry(path, "d", 0o755, 0, 0, 0, time.time_ns(), "", "", 0)
        batch = Batch(None, [trees.Placed(path, False, entry)])
        return await self._files("workdir", one, [batch], config.user, linked=False, config=config)

    async def _copy(self, one: Copy) -> bool:
        with self.build.workshop.place() as place:
            batches = await gather(self, one, place)
            return await self._files("copy", one, batches, self.word(one.owner), linked=one.linked)

    async def _files(
        self,
        kind: str,
        one: Instruction,
        batches: list[Batch],
        owner: str,
        *,
        linked: bool,
        config: ImageConfig | None = None,
    ) -> bool:
        build, before = self.build, self.snapshot
        if not owner.replace(":", "", 1).isdigit() and owner:
            linked = False  # the name stands in the image's own files
        chain = [] if linked else before.chain
        digests = [trees.digest(batch.placed) for batch in batches]
        step = key(kind, chain, owner, digests, build.epoch)
        async with self._alone(step):
            known = record = await self._found(step)
            if record is None:
                base = [] if linked else before.paths(build.images.layers)
                async with build.slots:
                    with build.workshop.place() as place:
                        for batch in batches:
                            await build.workshop.copy(place, base, batch.tree, batch.placed, owner)
                        layer = await build.keep(place / "upper")
                record = build.made(step, one.line.text, layer)
        self.snapshot = before.followed(one.line.text, record.layer, config, timestamp(record.created))
        return known is not None

    async def _run(self, one: Run, heard: Heard) -> bool:
        build, before = self.build, self.snapshot
        if one.insecure and "security.insecure" not in build.request.allowed:
            flag = "--security=insecure"
            raise WrongWord(f"RUN {flag} is not allowed: build with --allow security.insecure", flag)
        if one.network == "host" and "network.host" not in build.request.allowed and build.request.network != "host":
            flag = "--network=host"
            raise WrongWord(
                f"RUN {flag} is not allowed: build with --allow network.host, or all of it with --network host", flag
            )
        env = self.environment()
        argv = command_of(one, before.config)
        async with AsyncExitStack() as held:
            prepared = await prepare(self, one, held)
            step = key(
                "run",
                before.chain,
                argv,
                list(before.config.env),
                {name: value for name, value in env.items() if name not in PROXIES},
                [before.config.user, before.config.workdir],
                prepared.keys,
                [one.network, one.insecure, build.request.network, list(build.request.extra_hosts), build.epoch],
            )
            async with self._alone(step):
                known = record = await self._found(step)
                if record is None:
                    layer = await self._executed(one, argv, env, prepared, heard)
                    record = build.made(step, one.line.text, layer)
        self.snapshot = before.followed(one.line.text, record.layer, created=timestamp(record.created))
        return known is not None

    async def _executed(
        self, one: Run, argv: tuple[str, ...], env: Mapping[str, str], prepared: Prepared, heard: Heard
    ) -> Layer | None:
        build, tail = self.build, list[bytes]()

        def listen(entry: LogEntry) -> None:
            tail.append(entry.data)
            del tail[:-_TAIL]
            heard(entry.data, entry.stream)

        async with build.slots:
            config = await prepared.config(argv, env)
            ended, layer = await build.workshop.run(self.snapshot, config, listen, build.keep)
        if ended.code:
            why = "was killed because its memory ran out" if ended.oom_killed else f"ended with exit code {ended.code}"
            said = b"".join(tail).decode(errors="replace").strip().rpartition("\n")[2]
            raise StepFailed(f"{one.line.text.partition(chr(10))[0]} {why}{f': {said}' if said else ''}", ended.code)
        return layer

    async def tree_of(self, name: str, paths: Sequence[str], *, follow: bool = True) -> trees.Tree:
        """What is at and below some paths of a stage, an image, or a context that has a name.

        follow: what is at a path that is a link is what it leads to.
        """
        build = self.build
        if (tree := build.named.tree(name)) is not None:
            return tree
        if earlier := build.graph.before(self.stage, name):
            found = await build.stage(earlier.index)
            layers = found.paths(build.images.layers)
            return await build.workshop.tree(layers, paths, f"stage {earlier.name}", follow=follow)
        if build.dockerfile.stage(name) and not build.named.has(name):
            why = "comes later, or is this one: only stages before this one can be copied from"
            raise WrongWord(f"stage {name} {why}", name)
        try:
            found = await build.base(name, self.snapshot.platform)
        except RuntimeFault as error:
            hint = self._stage_hint(name) or "there is no such stage before this one"
            raise WrongWord(f"{error}; {hint}", name) from None
        layers = found.paths(build.images.layers)
        return await build.workshop.tree(layers, paths, f"image {name}", follow=follow)

    def _stage_hint(self, name: str) -> str:
        """What an image that can't be had may be instead, by its name."""
        stages = self.build.dockerfile.stages
        if any(name.lower() == stage.name for stage in stages[self.stage.index :]):
            return f"stage {name} does not stand before this one"
        known = [stage.name for stage in stages[: self.stage.index] if stage.begin.name]
        found = get_close_matches(name.lower(), known, 1)
        return f"did you mean stage {found[0]}?" if found else ""

    # ------------------------------------------------------------ the cache

    def _alone(self, key: str) -> AbstractAsyncContextManager[None]:
        """For a step that is looked up and then made: of builds that come to the same one, one makes it for all."""
        return nullcontext() if self._fresh else self.build.images.only_one(f"step {key}")

    async def _found(self, key: str) -> Record | None:
        return None if self._fresh else await self.build.found(key)
