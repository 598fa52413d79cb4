"""Gets an image that a task or a manager wants here: from this node, from other nodes, from its registry."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress

import grpc

from swarmd.agent.content.inventory import Inventory
from swarmd.agent.content.managers import Managers
from swarmd.agent.content.peers import GrpcPeers, reachable
from swarmd.agent.content.source import ClusterSource
from swarmd.proto.clock import Clock
from swarmd.proto.dispatcher_pb2 import Holder
from swarmd.runtime.errors import Corrupt, Invalid, NotFound, RuntimeFault, Unauthorized, Unavailable
from swarmd.runtime.images.arrivals import Report, fetch, silent
from swarmd.runtime.images.image import Image
from swarmd.runtime.images.manifests import Descriptor, host_platform
from swarmd.runtime.images.pulling import pull
from swarmd.runtime.images.references import Reference
from swarmd.runtime.images.store import ImageStore
from swarmd.runtime.registry import ANONYMOUS, Credentials, Registries

FRESH = 0.2  # s, in which managers are not asked again who holds an image


class ClusterImages:
    def __init__(
        self,
        store: ImageStore,
        registries: Registries,
        inventory: Inventory,
        managers: Managers,
        node_id: str,
        credentials: Callable[[], grpc.ChannelCredentials],
        clock: Clock,
    ) -> None:
        self._store = store
        self._registries = registries
        self._inventory = inventory
        self._managers = managers
        self._node_id = node_id
        self._credentials = credentials
        self._clock = clock
        self._rng = random.Random()

    async def get(
        self, ref: str, called: str = "", credentials: Credentials | None = None, report: Report = silent
    ) -> Image:
        """The image of a name, of which its digest, if it has one, decides; called: a name that it gets besides.

        Raises NotFound, in a sentence that says who was asked; Unavailable when no manager could be.
        """
        name = _reference(ref)
        image = self._store.get(ref) if name is None else await self._brought(name, credentials, report)
        if called and called not in image.refs:
            return await self._store.name(image.target, (called,), lasting=False)
        return image

    async def _brought(self, name: Reference, credentials: Credentials | None, report: Report) -> Image:
        with suppress(NotFound):
            return await self._here(name)
        holders = await self._managers.holders(str(name), name.digest)
        if others := reachable(holders, self._node_id):
            newest = max(others, key=lambda holder: (not holder.image.coming, holder.image.updated))
            try:
                return await self._from_nodes(name, newest, report)
            except (NotFound, Invalid) as failure:
                said = str(failure)
        elif holders and (away := [one.hostname for one in holders if one.node_id != self._node_id]):
            said = f"is on {_listed(away)} only, which can't be reached"
        else:
            said = "is on no node of the cluster"
        return await self._from_registry(name, said, credentials, report)

    async def _here(self, name: Reference) -> Image:
        """Without its name yet, perhaps, if it has the digest."""
        if not name.digest:
            return self._store.get(str(name))
        image = self._store.get(name.digest)
        if name_of(name) in image.refs:
            return image
        # An index that is here has the images that it lists.
        return await self._named(image.target if image.id == name.digest else image.variant.manifest, name)

    async def _named(self, target: Descriptor, name: Reference) -> Image:
        return await self._store.name(target, (name_of(name),), lasting=False)

    async def _from_nodes(self, name: Reference, newest: Holder, report: Report) -> Image:
        image = newest.image
        target = Descriptor(media_type=image.media_type, digest=image.digest, size=image.target_size)

        known, until = [newest], 0.0

        async def holders() -> Sequence[Holder]:
            nonlocal known, until
            if self._clock.monotonic() > until:
                with suppress(Unavailable):  # it goes on without managers
                    known = reachable(await self._managers.holders("", target.digest), self._node_id)
                until = self._clock.monotonic() + FRESH
            return known

        with self._inventory.coming(target, str(name)):
            async with GrpcPeers(self._credentials) as peers:
                # Nobody has checked what is still coming to nodes: if it is damaged, those that have all of it decide.
                for only_whole in (False, True):
                    source = ClusterSource(holders, peers, self._clock, self._rng, only_whole=only_whole)
                    try:
                        with self._store.lease() as lease:
                            await fetch(self._store, lease, source, target, name.familiar, host_platform(), report)
                            return await self._named(target, name)
                    except NotFound:
                        raise NotFound(f"could not be fetched from {_tried(source, newest)}") from None
                    except (Invalid, Corrupt):
                        if only_whole:
                            raise
        raise AssertionError("unreachable")

    async def _from_registry(
        self, name: Reference, said: str, credentials: Credentials | None, report: Report
    ) -> Image:
        try:
            return (await pull(self._store, self._registries, name, credentials=credentials, report=report)).image
        except Unauthorized as fault:
            if credentials not in (None, ANONYMOUS):
                raise NotFound(f"image {name.familiar} {said}, and {fault}") from None
            how = "give nodes yours with 'service update --with-registry-auth'"
            raise NotFound(f"image {name.familiar} {said}, and its registry wants a login: {how}") from None
        except RuntimeFault as fault:
            raise NotFound(f"image {name.familiar} {said}, and {fault}") from None


def name_of(name: Reference) -> str:
    """What an image is called when it has come: a digest says more than a tag that comes with it, as in Docker."""
    return f"{name.repository}@{name.digest}" if name.digest else str(name)


def _reference(ref: str) -> Reference | None:
    """None for an image id."""
    with suppress(Invalid):
        return Reference.parse(ref)
    return None


def _tried(source: ClusterSource, newest: Holder) -> str:
    problems = [f"{hostname} ({problem})" for hostname, problem in sorted(source.problems.items())]
    return _listed(problems) or f"{newest.hostname}, which has not all of it"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
