"""A build: the stages that its target needs, each once and side by side, and the image that comes of it.

    Dockerfile ─▶ stages ─▶ target's stage ─▶ image
                    └─ awaits the stages that its FROM, COPY --from and RUN --mount=from name, which begin at once;
                       what nothing needs is never looked at

What a step makes is found by a key that is a pure function of content (cache.py), so it is made once, on any host.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from swarmd.runtime.build import effects
from swarmd.runtime.build.cache import Cache, Layer, Record
from swarmd.runtime.build.dockerfile import DockerfileError, expand, parse, parse_line
from swarmd.runtime.build.dockerfile.errors import placed
from swarmd.runtime.build.dockerfile.instructions import Copy, Stage
from swarmd.runtime.build.dockerfile.lines import Line
from swarmd.runtime.build.faults import StepFailed, WrongWord
from swarmd.runtime.build.graph import Graph
from swarmd.runtime.build.imported import Look, imports
from swarmd.runtime.build.named import Named
from swarmd.runtime.build.request import Progress, Pull, Report, Request, Step
from swarmd.runtime.build.snapshots import Snapshot, document, of_image
from swarmd.runtime.build.stages import StageRun
from swarmd.runtime.build.trees import Tree
from swarmd.runtime.build.variables import PREDEFINED, platform_values
from swarmd.runtime.build.workshop import Keep, Workshop
from swarmd.runtime.errors import Invalid, NotFound, RuntimeFault
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Platform, host_platform, parse_platform
from swarmd.runtime.images.store import Lease

_AT_ONCE = 4  # steps of one build


class Build:
    """context: the files that COPY takes; named: what it and FROM find by names, before stages and images."""

    def __init__(
        self,
        workshop: Workshop,
        cache: Cache,
        request: Request,
        context: Tree,
        named: Named,
        pull: Pull,
        look: Look,
        report: Report,
    ) -> None:
        self.workshop, self.cache, self.request, self.context, self.named = workshop, cache, request, context, named
        self.images = workshop.images
        self.slots = asyncio.Semaphore(_AT_ONCE)
        self.consumed: set[str] = set()  # build arguments that an ARG asked for
        self._pull, self._look, self._report = pull, look, report
        self._stages: dict[int, asyncio.Task[Snapshot]] = {}
        self._pulled: dict[str, asyncio.Task[Image]] = {}
        self._steps: dict[str, Record] = {}  # those that were made or found
        self._number = 0
        self.epoch = self._read_epoch()

    def _read_epoch(self) -> int | None:
        text = self.request.args.get("SOURCE_DATE_EPOCH", "")
        if text and not (text.isascii() and text.isdigit()):
            raise Invalid(f"build argument SOURCE_DATE_EPOCH is a number of seconds, not {text!r}")
        return int(text) if text else None

    async def run(self) -> Image:
        """Raises DockerfileError, or another RuntimeFault; what was made on the way is in the cache then."""
        self.dockerfile = parse(self.request.dockerfile, self.request.file, self.context.left_out)
        for sentence in self.dockerfile.warnings:
            self.warn(sentence)
        self.globals = self._globals()
        self.graph = Graph(self.dockerfile, self.named)
        target = self.graph.stage(self.request.target)
        for name in self.request.fresh:
            self.graph.stage(name)
        self._count = sum(len(stage.instructions) + 1 for stage in self.graph.reached(target))
        with self.images.lease() as lease:
            self.lease = lease
            self.keep = Keep(self.images, lease, self.epoch)
            wanted = self.request.platform or host_platform()
            names = () if self.request.no_cache else self.request.cache_from
            self._imports = await imports(self.images, lease, names, wanted, self._look, self.warn)
            try:
                snapshot = await self.stage(target.index)
                return await self._image(snapshot, lease)
            finally:
                await self._end()

    def warn(self, sentence: str) -> None:
        self._report(Progress(step=Step(number=0, count=0, stage="", text=""), state="warning", data=sentence.encode()))

    async def _end(self) -> None:
        tasks = [*self._stages.values(), *self._pulled.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # the first was raised; the others' were because of it

    # ------------------------------------------------------------ stages

    async def stage(self, index: int) -> Snapshot:
        """The result of a stage, which begins with the first who asks."""
        if index not in self._stages:
            self._stages[index] = asyncio.ensure_future(self._run_stage(self.dockerfile.stages[index]))
        return await asyncio.shield(self._stages[index])

    async def _run_stage(self, stage: Stage) -> Snapshot:
        for needed in self.graph.needed(stage):
            if needed.index not in self._stages:
                self._stages[needed.index] = asyncio.ensure_future(self._run_stage(needed))
        text = f"FROM {stage.begin.image}"
        run = StageRun(self, stage)
        # A step begins when it need not wait for another: what that one does is told by itself.
        await self._after(stage, stage.begin.image)
        begin = stage.begin.line
        await self.performed(stage, (1, 1 + len(stage.instructions)), text, begin, lambda heard: run.begin())
        triggers = [parse_line(line, f"ONBUILD of {stage.begin.image}") for line in run.take_triggers()]
        instructions = (*triggers, *stage.instructions)
        for place, one in enumerate(instructions, 2):
            of = place, 1 + len(instructions)
            if isinstance(one, Copy):
                await self._after(stage, one.from_)
            trigger = place < 2 + len(triggers)  # which stands in no line of this file
            await self.performed(stage, of, one.line.text, begin if trigger else one.line, partial(run.perform, one))
        return msgspec.structs.replace(run.snapshot, args=tuple(run.args.items()))

    async def _after(self, stage: Stage, name: str) -> None:
        if name and (earlier := self.graph.before(stage, name)):
            await self.stage(earlier.index)

    async def performed(
        self,
        stage: Stage,
        of: tuple[int, int],
        text: str,
        line: Line,
        work: Callable[[Callable[[bytes, str], None]], Awaitable[bool]],
    ) -> None:
        """Perform a step and tell of it.

        of: Step's place and places; line: that errors are about; work: returns whether the cache had it.
        """
        self._number += 1
        name = stage.name if len(self.dockerfile.stages) > 1 else ""
        count = max(self._count, self._number)
        step = Step(number=self._number, count=count, stage=name, text=text, place=of[0], places=of[1])
        start = time.monotonic()

        def tell(state: str, data: bytes = b"", stream: str = "") -> None:
            seconds = time.monotonic() - start
            self._report(Progress(step=step, state=state, data=data, stream=stream, seconds=seconds))

        tell("started")
        try:
            cached = await work(lambda data, stream: tell("output", data, stream))
        except DockerfileError:
            tell("failed")
            raise
        except RuntimeFault as error:
            tell("failed")
            own = line.keyword == text.partition(" ")[0]
            code = error.code if isinstance(error, StepFailed) else 0
            word = error.word if isinstance(error, WrongWord) else ""
            source = self.request.dockerfile.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
            why = str(error) if own else f"{error}; the image has this step with ONBUILD: {text}"
            raise placed(self.dockerfile.file, source, (line.first, line.last), why, word, code) from error
        tell("cached" if cached else "done")

    # ------------------------------------------------------------ images

    async def base(self, ref: str, platform: Platform) -> Snapshot:
        """An image to begin with or to copy from, brought if it is not here."""
        ref = self.named.image(ref)
        key = f"{ref} {platform}"
        if key not in self._pulled:
            self._pulled[key] = asyncio.ensure_future(self._found(ref, platform))
        image = await asyncio.shield(self._pulled[key])
        self.lease.blobs |= {image.id, *image.variant.digests()}
        self.lease.layers |= {*image.variant.diff_ids}
        return of_image(image)

    async def _found(self, ref: str, platform: Platform) -> Image:
        other = ""  # what is here, and is not of the platform
        if not self.request.pull:
            with contextlib.suppress(NotFound):
                image = self.images.get(ref)
                try:
                    return image.of(platform)
                except NotFound as error:
                    other = f"{error}; "
        try:
            return (await self._pull(ref, platform, self.request.pull)).of(platform)
        except NotFound as error:
            raise NotFound(f"{other}{error}") from None

    async def _image(self, snapshot: Snapshot, lease: Lease) -> Image:
        if self.request.labels:
            config = effects.label(snapshot.config, self.request.labels)
            snapshot = msgspec.structs.replace(snapshot, config=config)
        if self.request.squash:
            snapshot = await self._squashed(snapshot)
        layers = [layer.descriptor for layer in snapshot.layers]
        steps = self._steps.values() if self.request.inline_cache else None
        configuration = document(snapshot, self.epoch, steps)
        target = await self.images.create(lease, configuration, layers, self.request.annotations)
        return await self.images.name(target, self.request.refs, lasting=False)

    async def _squashed(self, snapshot: Snapshot) -> Snapshot:
        """With one layer instead of those that this build has put on its base."""
        kept = len(self.images.get(snapshot.base).variant.diff_ids) if snapshot.base else 0
        if len(snapshot.layers) - kept < 2:
            return snapshot
        with self.workshop.place() as place:
            layer = await self.workshop.merged(place, snapshot.layers[kept:], self.keep)
        own = [msgspec.structs.replace(e, empty_layer=True) for e in snapshot.history[snapshot.inherited :]]
        own[-1] = msgspec.structs.replace(own[-1], empty_layer=layer is None)
        history = (*snapshot.history[: snapshot.inherited], *own)
        return msgspec.structs.replace(
            snapshot, layers=(*snapshot.layers[:kept], *([layer] if layer else [])), history=history
        )

    # ------------------------------------------------------------ variables

    def _globals(self) -> dict[str, str]:
        """What FROM lines may use: the platforms, and the arguments before the first of them."""
        build, target = host_platform(), self.request.platform or host_platform()
        values = {**platform_values("BUILD", build), **platform_values("TARGET", target)}
        values["TARGETSTAGE"] = self.request.target or "default"
        for argument in self.dockerfile.arguments:
            if argument.name in self.request.args:
                self.consumed.add(argument.name)
                values[argument.name] = self.request.args[argument.name]
            elif argument.value is not None:
                values[argument.name] = expand(argument.value, values, self.dockerfile.escape)
        return values

    def platform_of(self, stage: Stage) -> Platform:
        text = expand(stage.begin.platform, self.globals, self.dockerfile.escape)
        return parse_platform(text) if text else self.request.platform or host_platform()

    def unused(self) -> list[str]:
        """Build arguments that no ARG of what was built asked for."""
        return sorted(self.request.args.keys() - self.consumed - PREDEFINED - self.globals.keys())

    # ------------------------------------------------------------ the cache

    async def found(self, key: str) -> Record | None:
        """What the cache has for a step, or an image that steps may be taken of."""
        record = self._cached(key)
        if record is None and (record := await self._imports.record(key)):
            self.cache.take(record)
        if record:
            self._steps[key] = record
        return record

    def _cached(self, key: str) -> Record | None:
        """If its content is still here."""
        record = self.cache.find(key)
        if record and record.layer:
            layer = record.layer
            self.lease.blobs.add(layer.descriptor.digest)
            self.lease.layers.add(layer.diff_id)
            if not (self.images.blobs.holds(layer.descriptor) and self.images.layers.has(layer.diff_id)):
                self.cache.forget(key)
                return None
        return record

    def made(self, key: str, description: str, layer: Layer | None) -> Record:
        size = layer.descriptor.size + self.images.layers.size(layer.diff_id) if layer else 0
        self._steps[key] = self.cache.add(key, description, layer, size)
        return self._steps[key]
