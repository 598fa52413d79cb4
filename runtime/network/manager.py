"""The runtime's network: networks, the sandboxes of containers, and the cluster's overlays on this node.

Invariant: what a container holds is on disk before it is acquired, so `release` works from the disk alone and a crash
leaks nothing.  Decisions are made here, on the event loop; `wiring` carries them out on the network thread.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import itertools
import logging
import os
import secrets
import socket
import string
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from swarmd.runtime import joining
from swarmd.runtime.effective import host_names
from swarmd.runtime.errors import Conflict, Exhausted, Invalid, NotFound, RuntimeFault
from swarmd.runtime.finishing import finished
from swarmd.runtime.model import ContainerConfig, NetworkRequest, NetworkState, PortMapping
from swarmd.runtime.network import overlay, ruleset
from swarmd.runtime.network.dns import DnsServer, host_resolvers
from swarmd.runtime.network.ipam import Pool, mac_of
from swarmd.runtime.network.netns import Kernel
from swarmd.runtime.network.ports import Ports
from swarmd.runtime.network.ruleset import Balanced, BridgeRule
from swarmd.runtime.network.values import Attachment, NetworkInfo, Overlay, OverlayState, Record, Sandbox
from swarmd.runtime.network.wiring import Wiring

log = logging.getLogger(__name__)

SUBNETS = (*(f"172.{n}.0.0/16" for n in range(17, 32)), *(f"192.168.{n}.0/20" for n in range(0, 256, 16)))
INGRESS = "an ingress port of the cluster"
QUIET = 0.05  # s
LETTERS = string.ascii_lowercase + string.digits


class NetworkManager:
    _dns: DnsServer

    def __init__(self, state_dir: Path, run_dir: Path) -> None:
        self._state = state_dir
        self._netns = run_dir / "netns"
        self._prefix = "sd" + hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:5]
        self._kernel = Kernel()
        self._wiring = Wiring(self._kernel, self._prefix)
        self._ports = Ports()
        self._networks: dict[str, NetworkInfo] = {}
        self._pools: dict[str, Pool] = {}
        self._records: dict[str, Record] = {}
        self._overlays: dict[str, tuple[Overlay, int]] = {}  # with its MTU
        self._cluster = OverlayState()
        self._balanced: dict[str, Balanced] = {}
        self._inside: dict[str, str] = {}  # container id -> the table its sandbox has
        self._refill = asyncio.Event()
        self._changing = asyncio.Lock()  # one change of networks or overlays at a time; attaching needs none

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, state_dir: Path, run_dir: Path) -> AsyncIterator["NetworkManager"]:
        """Adopt what is in the kernel and answer names until left; leaving takes nothing away from containers."""
        manager = cls(state_dir, run_dir)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(manager._kernel.close)
            stack.callback(manager._ports.close)
            await manager._kernel.run(manager._wiring.open)
            stack.push_async_callback(manager._kernel.run, manager._wiring.close)
            async with asyncio.TaskGroup() as tasks:
                manager._dns = DnsServer(manager, tasks)
                await manager._restore()
                refilling = tasks.create_task(manager._keep_ready())
                try:
                    yield manager
                finally:
                    refilling.cancel()
                    await manager._dns.close()

    # ------------------------------------------------------------ networks

    async def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnet: str = "",
        gateway: str = "",
        internal: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> NetworkInfo:
        if driver != "bridge":
            raise Invalid(f"network {name}: driver {driver} is not known here; use bridge")
        if not name or name in ("none", "host") or set(name) - set(string.ascii_letters + string.digits + "_.-"):
            raise Invalid(f"network name {name!r} must be letters, digits, '_', '.' or '-', and not none or host")
        async with self._changing:
            if any(name == network.name for network in self.list()):
                raise Conflict(f"network {name} already exists")
            chosen = await self._choose_subnet(name, subnet)
            address = gateway or str(chosen.network_address + 1)
            if ipaddress.IPv4Address(address) not in chosen:
                raise Invalid(f"network {name}: gateway {address} is not in subnet {chosen}")
            ident = secrets.token_hex(32)
            network = NetworkInfo(
                id=ident,
                name=name,
                subnet=str(chosen),
                gateway=address,
                internal=internal,
                labels=dict(labels or {}),
                bridge=f"{self._prefix}b{ident[:7]}",
            )
            self._networks[ident] = network
            self._save_networks()
            await self._install(network)
            await self._program()
        return network

    async def remove(self, ref: str) -> None:
        async with self._changing:
            network = self.inspect(ref)
            if network.driver == "overlay":
                raise Invalid(f"network {network.name} belongs to the cluster; remove it there")
            if network.name == "bridge":
                raise Invalid("network bridge is the default network and cannot be removed")
            users = [r.name for r in self._records.values() if network.id in {a.network_id for a in r.attachments}]
            if users:
                raise Conflict(f"network {network.name} is in use by {', '.join(sorted(users))}")
            del self._networks[network.id], self._pools[network.id]
            self._save_networks()
            await self._dns.quiet(network.gateway)
            await self._program()
            await self._kernel.run(self._wiring.remove_link, network.bridge)

    def list(self) -> Sequence[NetworkInfo]:
        return [*self._networks.values(), *(self._overlay_info(net) for net, _ in self._overlays.values())]

    def inspect(self, ref: str) -> NetworkInfo:
        """Find by id, name or unique start of an id."""
        known = self.list()
        exact = [network for network in known if ref in (network.id, network.name)]
        found = exact or [network for network in known if ref and network.id.startswith(ref)]
        if len(found) != 1:
            raise NotFound(f"network {ref} is ambiguous" if found else f"no such network: {ref}")
        return found[0]

    def _overlay_info(self, net: Overlay) -> NetworkInfo:
        bridge, _ = self._overlay_links(net)
        return NetworkInfo(
            id=net.id,
            name=net.name,
            driver="overlay",
            subnet=net.subnet,
            gateway=net.gateway,
            internal=net.internal,
            bridge=bridge,
        )

    def _overlay_links(self, net: Overlay) -> tuple[str, str]:
        return f"{self._prefix}o{net.vni:x}", f"{self._prefix}x{net.vni:x}"

    async def _choose_subnet(self, name: str, wanted: str) -> ipaddress.IPv4Network:
        taken = [ipaddress.IPv4Network(text) for text in await self._kernel.run(self._wiring.taken_subnets)]
        taken += [ipaddress.IPv4Network(network.subnet) for network in self.list()]
        if wanted:
            try:
                chosen = ipaddress.IPv4Network(wanted)
            except ValueError as error:
                raise Invalid(f"network {name}: {wanted} is not an IPv4 subnet such as 10.1.0.0/24") from error
            if any(chosen.overlaps(other) for other in taken):
                raise Conflict(f"network {name}: subnet {wanted} overlaps an address range in use on this host")
            return chosen
        for text in SUBNETS:
            if not any((chosen := ipaddress.IPv4Network(text)).overlaps(other) for other in taken):
                return chosen
        raise Exhausted(f"network {name}: no free subnet is left; name one with subnet")

    async def _install(self, network: NetworkInfo) -> None:
        used = [a.ip for r in self._records.values() for a in r.attachments if a.network_id == network.id]
        self._pools[network.id] = Pool(network.name, network.subnet, [network.gateway, *used])
        prefix = network.subnet.partition("/")[2]
        await self._kernel.run(self._wiring.ensure_bridge, network.bridge, network.gateway, prefix)
        await self._dns.listen(network.gateway)

    # ------------------------------------------------------------ sandboxes

    def sandboxes(self) -> Sequence[str]:
        """The ids of all containers that hold a sandbox; those unknown to the engine are its to release."""
        return list(self._records)

    async def attach(self, container_id: str, name: str, config: ContainerConfig, netns: str = "") -> Sandbox:
        """Make the container's sandbox, complete before its program starts; netns: the file of one to use.

        The first network that is not internal carries the default route and the published ports.
        """
        if config.network_mode == "host" and not config.networks:
            if config.ports:
                raise Invalid(f"container {name} uses the host's network: it has no ports to publish")
            return Sandbox("", nameservers=config.dns.nameservers)
        if container_id in self._records:
            raise Conflict(f"container {name or container_id} already has a sandbox")
        record = self._acquire(container_id, name, config)
        try:
            self._save_record(record)
            self._records[container_id] = record
            path = self._netns / container_id
            await self._kernel.run(self._wiring.wire, record, path, self._local_overlay_addresses([record]), netns)
            await self._set_virtual_addresses([record])
        except BaseException:
            self._records.pop(container_id, None)
            await finished(self._undo(record))
            raise
        self._refill.set()
        return self._sandbox(record, config)

    def _acquire(self, container_id: str, name: str, config: ContainerConfig) -> Record:
        attachments: list[Attachment] = []
        ports: list[PortMapping] = []
        try:
            # One by one, so that what was had before a refusal is known and given back.
            for request in joining.requests(config):
                attachments += [self._reserve(request, len(attachments))]
            if config.ports and not attachments:
                raise Invalid(f"container {name} publishes ports but has no network")
            for port in config.ports:
                ports += [self._ports.hold(port, f"container {name or container_id[:12]}")]
        except BaseException:
            self._give_back(attachments, ports)
            raise
        return Record(
            container_id=container_id,
            name=name,
            attachments=tuple(attachments),
            ports=tuple(ports),
            links=config.links,
        )

    def _reserve(self, request: NetworkRequest, number: int) -> Attachment:
        network = self.inspect(request.network)
        given, _, prefix = request.address.partition("/")
        if network.driver == "overlay" and not given:
            raise Invalid(f"network {network.name} is an overlay: its addresses are given by the cluster")
        pool = self._pools.get(network.id)
        address = pool.take(given) if pool else given
        return Attachment(
            network_id=network.id,
            network=network.name,
            address=f"{address}/{prefix or network.subnet.partition('/')[2]}",
            gateway="" if network.internal else network.gateway,
            bridge=network.bridge,
            mtu=self._overlays[network.id][1] if network.id in self._overlays else 1500,
            host_interface=f"{self._prefix}v" + "".join(secrets.choice(LETTERS) for _ in range(7)),
            aliases=request.aliases,
            mac=request.mac or mac_of(address),
            number=number,
        )

    def _give_back(self, attachments: Iterable[Attachment], ports: Iterable[PortMapping]) -> None:
        for attachment in attachments:
            if pool := self._pools.get(attachment.network_id):
                pool.give_back(attachment.ip)
        for port in ports:
            self._ports.let_go(port)

    def _sandbox(self, record: Record, config: ContainerConfig) -> Sandbox:
        found = [(a, self.inspect(a.network_id)) for a in record.attachments]
        networks = tuple(
            NetworkState(
                network=a.network,
                address=a.address,
                gateway=a.gateway,
                mac=a.mac,
                interface=a.interface,
                id=network.id,
                driver=network.driver,
            )
            for a, network in found
        )
        own = [network.gateway for _, network in found]
        servers = config.dns.nameservers or tuple(own[:1]) or host_resolvers()
        # Not the container's name, which may change: that is answered by DNS.
        names = host_names(record.container_id, config)
        hosts = tuple((a.ip, names) for a in record.attachments)
        return Sandbox(str(self._netns / record.container_id), networks, record.ports, servers, hosts)

    async def socket_inside(self, pidfd: int, family: int) -> socket.socket:
        return await self._kernel.run(self._kernel.socket_inside, pidfd, family)

    async def release(self, container_id: str) -> None:
        """Give back all that the container holds; nothing happens if it holds nothing."""
        if record := self._records.pop(container_id, None):
            await finished(self._undo(record))

    async def connect(self, container_id: str, request: NetworkRequest, config: ContainerConfig) -> Sandbox:
        """Add a network to a container that runs, whose configuration is then config."""
        before = self._records[container_id]
        taken = {attachment.number for attachment in before.attachments}
        attachment = self._reserve(request, next(n for n in itertools.count() if n not in taken))
        after = msgspec.structs.replace(before, attachments=(*before.attachments, attachment))
        path = self._netns / container_id
        try:
            self._save_record(after)
            self._records[container_id] = after
            await self._kernel.run(self._wiring.connect, before, after, path)
        except BaseException:
            self._records[container_id] = before
            await finished(self._take_away(after, before))
            raise
        return self._sandbox(after, config)

    async def disconnect(self, container_id: str, network_id: str, config: ContainerConfig) -> Sandbox:
        """Take a network from a container that runs, whose configuration is then config."""
        before = self._records[container_id]
        kept = tuple(a for a in before.attachments if a.network_id != network_id)
        after = msgspec.structs.replace(before, attachments=kept)
        self._records[container_id] = after
        await finished(self._take_away(before, after))
        return self._sandbox(after, config)

    async def _take_away(self, before: Record, after: Record) -> None:
        await self._kernel.run(self._wiring.disconnect, before, after, self._netns / before.container_id)
        self._give_back([a for a in before.attachments if a not in after.attachments], ())
        # Last: until here, the release of the container would find what there is to take away.
        self._save_record(after)

    def rename(self, container_id: str, name: str) -> None:
        """Let others find the container by its new name from now on. Raises Conflict for another's alias."""
        record = self._records.get(container_id)
        if record is None:
            return
        networks = {attachment.network_id for attachment in record.attachments}
        for other in self._records.values():
            for attachment in other.attachments if other is not record else ():
                if attachment.network_id in networks and name.lower() in map(str.lower, attachment.aliases):
                    where = f"container {other.name or other.container_id[:12]} on network {attachment.network}"
                    raise Conflict(f"the name {name} is an alias of {where}: choose another, or disconnect that one")
        self._records[container_id] = msgspec.structs.replace(record, name=name)
        self._save_record(self._records[container_id])

    async def _undo(self, record: Record) -> None:
        path = self._netns / record.container_id
        await self._kernel.run(self._wiring.unwire, record, path, self._local_overlay_addresses([record]))
        self._inside.pop(record.container_id, None)
        self._give_back(record.attachments, record.ports)
        # Last: until here, another try would find everything it needs.
        self._record_path(record.container_id).unlink(missing_ok=True)

    def _local_overlay_addresses(self, records: Iterable[Record]) -> Sequence[str]:
        overlay_bridges = f"{self._prefix}o"
        return [a.ip for r in records for a in r.attachments if a.bridge.startswith(overlay_bridges)]

    async def _keep_ready(self) -> None:
        while True:
            self._refill.clear()
            try:
                while await self._kernel.run(self._kernel.fill):
                    pass
            except OSError as error:  # an attach will meet the same refusal, and say so to who asked
                log.warning("no network namespaces kept ready: %s", error)
            await self._refill.wait()
            await self._quiet()

    async def _quiet(self) -> None:
        """Wait until nothing has been attached for a moment: what starts has better use for the processors."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._refill.clear()
                await asyncio.wait_for(self._refill.wait(), QUIET)

    # ------------------------------------------------------------ the cluster's networks

    async def apply(self, desired: OverlayState) -> None:
        """Make this node's overlays, balanced ports and service addresses what the cluster's state says."""
        async with self._changing:
            if desired != self._cluster:
                write(self._state / "overlays.json", desired)
            self._cluster = desired
            before = dict(self._overlays)
            await self._apply_overlays()
            held = self._hold_ports()
            if before != self._overlays or not await self._kernel.run(self._wiring.programmed):
                self._balanced = held
                await self._program()
            else:
                await self._kernel.run(self._wiring.change_ingress, self._balanced, held)
                self._balanced = held
            await self._sweep()
            await self._set_virtual_addresses(list(self._records.values()))

    async def _apply_overlays(self) -> None:
        desired = {net.id: net for net in self._cluster.overlays}
        before = dict(self._overlays)
        for ident in before.keys() - desired.keys():
            await self._remove_overlay(before[ident][0])
        for net in desired.values():
            old = before.get(net.id)
            if old and old[0] != net:
                await self._remove_overlay(old[0])
            remote = overlay.remote_addresses(self._cluster, net)
            bridge, vxlan = self._overlay_links(net)
            mtu = await self._kernel.run(self._wiring.ensure_overlay, bridge, vxlan, net, remote)
            self._overlays[net.id] = net, mtu
            await self._dns.listen(net.gateway)

    async def _sweep(self) -> None:
        """Remove bridges and VXLAN devices of ours that belong to no network: what a crash left behind."""
        wanted = {network.bridge for network in self.list()}
        wanted |= {link for net, _ in self._overlays.values() for link in self._overlay_links(net)}
        for link in await self._kernel.run(self._wiring.our_links) - wanted:
            if link[len(self._prefix)] != "v":  # a container's; it goes with its namespace
                await self._kernel.run(self._wiring.remove_link, link)

    async def _remove_overlay(self, net: Overlay) -> None:
        self._overlays.pop(net.id, None)
        await self._dns.quiet(net.gateway)
        for link in reversed(self._overlay_links(net)):
            await self._kernel.run(self._wiring.remove_link, link)

    def _hold_ports(self) -> dict[str, Balanced]:
        """Return each ingress port that this node can answer for; one taken by another program stays its own."""
        wanted = overlay.balanced_ports(self._cluster)
        for chain in self._balanced.keys() - wanted.keys():
            self._ports.let_go(ingress_mapping(self._balanced[chain]))
        held: dict[str, Balanced] = {}
        for chain, port in wanted.items():
            try:
                if chain not in self._balanced:
                    self._ports.hold(ingress_mapping(port), INGRESS)
                held[chain] = port
            except RuntimeFault as error:
                log.warning("this node does not answer for ingress port %s: %s", port.published, error)
        return held

    async def _set_virtual_addresses(self, records: Iterable[Record]) -> None:
        for record in records:
            networks = {a.network_id for a in record.attachments} & self._overlays.keys()
            vips = overlay.service_addresses(self._cluster, networks)
            text = ruleset.virtual_addresses(vips)
            if (vips or record.container_id in self._inside) and self._inside.get(record.container_id) != text:
                path = self._netns / record.container_id
                if os.path.ismount(path):  # else its attach was cut short, or the host has restarted since
                    try:
                        await self._kernel.run(self._wiring.set_virtual_addresses, path, text)
                    except OSError:
                        if record.container_id in self._records:
                            raise
                        continue  # it was released meanwhile
                    self._inside[record.container_id] = text

    async def _program(self) -> None:
        bridges = [
            BridgeRule(n.bridge, n.subnet, internal=n.internal, overlay=n.driver == "overlay") for n in self.list()
        ]
        records = list(self._records.values())
        await self._kernel.run(
            self._wiring.program, bridges, records, self._local_overlay_addresses(records), self._balanced
        )

    # ------------------------------------------------------------ names

    def addresses(self, client: str, name: str) -> Sequence[str] | None:
        """Of `web` on all networks of the client, of `web.front` on network front, of a link's alias."""
        zones = {network: self._names(network) for network in self._networks_of(client)}
        host, _, suffix = name.rpartition(".")
        found = [zone[name] for zone in zones.values() if name in zone]
        found += [zone[host] for id, zone in zones.items() if host in zone and self.inspect(id).name.lower() == suffix]
        found += self._linked(client, name)
        return list(dict.fromkeys(ip for ips in found for ip in ips)) if found else None

    def _linked(self, client: str, name: str) -> Iterator[Sequence[str]]:
        for record in self._records.values():
            if any(a.ip == client for a in record.attachments):
                shared = {a.network_id for a in record.attachments}
                for link in record.links:
                    if link.alias.lower() == name:
                        other = self._records.get(link.container)
                        yield [a.ip for a in other.attachments if a.network_id in shared] if other else []

    def name_of(self, client: str, address: str) -> str:
        for network in self._networks_of(client):
            for name, addresses in self._names(network).items():
                if address in addresses:
                    return name
        return ""

    def _networks_of(self, client: str) -> Sequence[str]:
        return [
            a.network_id
            for record in self._records.values()
            if any(a.ip == client for a in record.attachments)
            for a in record.attachments
        ]

    def _names(self, network_id: str) -> Mapping[str, Sequence[str]]:
        found = overlay.names(self._cluster, network_id) if network_id in self._overlays else {}
        for record in self._records.values():
            for attachment in record.attachments:
                if attachment.network_id == network_id and network_id in self._networks:
                    for name in {record.name, record.container_id[:12], *attachment.aliases} - {""}:
                        found.setdefault(name.lower(), []).append(attachment.ip)
        return found

    # ------------------------------------------------------------ disk

    async def _restore(self) -> None:
        self._netns.mkdir(parents=True, exist_ok=True)
        (self._state / "sandboxes").mkdir(parents=True, exist_ok=True)
        for path in sorted((self._state / "sandboxes").glob("*.json")):
            try:
                record = _numbered(msgspec.json.decode(path.read_bytes(), type=Record))
            except msgspec.DecodeError:  # not synced: what it named went down with the host
                path.unlink()
                continue
            self._records[record.container_id] = record
        if (path := self._state / "networks.json").exists():
            saved = msgspec.json.decode(path.read_bytes(), type=tuple[NetworkInfo, ...])
            self._networks = {network.id: network for network in saved}
        for network in list(self._networks.values()):
            await self._install(network)
        for record in self._records.values():
            for port in record.ports:
                try:
                    self._ports.hold(port, f"container {record.name or record.container_id[:12]}")
                except RuntimeFault as error:
                    log.warning("container %s: %s", record.name, error)
        if not self._networks:
            await self.create("bridge")
        # One pass over everything, as after any change, so that the table is rewritten once and no port has a gap.
        saved_overlays = self._state / "overlays.json"
        if saved_overlays.exists():
            self._cluster = msgspec.json.decode(saved_overlays.read_bytes(), type=OverlayState)
        await self._apply_overlays()
        self._balanced = self._hold_ports()
        await self._program()
        await self._sweep()
        await self._set_virtual_addresses(list(self._records.values()))

    def _record_path(self, container_id: str) -> Path:
        return self._state / "sandboxes" / f"{container_id}.json"

    def _save_record(self, record: Record) -> None:
        # Not synced: after a crash of the machine, no namespace, address or port of it is held any more.
        replace(self._record_path(record.container_id), msgspec.json.encode(record), sync=False)

    def _save_networks(self) -> None:
        write(self._state / "networks.json", tuple(self._networks.values()))


def _numbered(record: Record) -> Record:
    """Of a swarmd that numbered interfaces by their place alone."""
    if len({attachment.number for attachment in record.attachments}) == len(record.attachments):
        return record
    numbered = (msgspec.structs.replace(a, number=number) for number, a in enumerate(record.attachments))
    return msgspec.structs.replace(record, attachments=tuple(numbered))


def ingress_mapping(port: Balanced) -> PortMapping:
    return PortMapping(container_port=port.target, host_port=port.published, protocol=port.protocol)


def write(path: Path, value: object) -> None:
    replace(path, msgspec.json.encode(value), sync=True)


def replace(path: Path, data: bytes, *, sync: bool) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)
