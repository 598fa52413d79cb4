"""This manager's member of the store: an etcd that lives and dies with the manager, over mTLS only.

    a new cluster     `begin`   one member that elects itself
    joining           `join`    added as a learner, started, promoted once it has caught up: never endangers the quorum
    afterwards        `running` started again whenever it ends; its data directory says all there is to know
    alone             `ALONE`   for one start: it forgets all other members, and keeps what it holds

A member that was taken out of the cluster refuses to start for ever: `running` then raises Removed, and its data is
only thrown away when this node has become a manager again, which its newer certificate shows.
"""

import asyncio
import hashlib
import logging
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from swarmd.manager.departures import StoreMember
from swarmd.manager.store.etcd_client import EtcdClient
from swarmd.proto import etcd_pb2 as rpc
from swarmd.proto.backoff import Backoff
from swarmd.proto.errors import FailedPrecondition, SwarmdError, Unavailable
from swarmd.proto.identity import write_atomically

log = logging.getLogger(__name__)
CLIENT_PORT, PEER_PORT = 2379, 2380
CORRUPTING = ("3.5.0", "3.5.1", "3.5.2")
MAX_OPERATIONS = 8192  # of one transaction
MAX_REQUEST = 16 << 20  # bytes
QUOTA = 8 << 30  # bytes, etcd's own advice for the most
KEPT_REVISIONS = 10_000
LOG_SIZE = 10 << 20  # bytes, before the log starts anew
SPARSE = 64 << 20  # bytes on disk from which half-empty is worth a defragmentation
UPKEEP = 600.0  # s
STOP = 5.0  # s, to end by itself
ALONE = ("--force-new-cluster",)


class Removed(FailedPrecondition):
    """This node is no manager of the cluster any more."""


@dataclass(frozen=True, slots=True)
class MemberFiles:
    """PEM files of the etcd authority, which is not the nodes'."""

    certificate: Path
    key: Path
    root: Path


class EtcdMember:
    def __init__(self, name: str, token: str, address: str, directory: Path, files: MemberFiles) -> None:
        """name: the node's id; token: the cluster's id; directory: for data and log."""
        self._name = name
        self._token = token
        self._host = f"[{address}]" if ":" in address else address
        self._directory = directory
        self._data = directory / "etcd"
        self._log = directory / "etcd.log"
        self._marker = directory / "etcd-removed"
        self._others = directory / "etcd-others"  # the client URLs of other members, a line each
        self._files = files
        self._why_ended = ""  # the last time

    @property
    def client_url(self) -> str:
        return f"https://{self._host}:{CLIENT_PORT}"

    @property
    def peer_url(self) -> str:
        return f"https://{self._host}:{PEER_PORT}"

    @property
    def has_data(self) -> bool:
        return (self._data / "member").exists()

    async def prepare(self) -> None:
        """Raise FailedPrecondition if this host's etcd can't be used; forget a membership that has ended."""
        await check_version()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._marker.exists() and self._marker.read_text() != self._certificate_digest():
            shutil.rmtree(self._data, ignore_errors=True)
            self._others.unlink(missing_ok=True)
            self._marker.unlink()

    def others(self) -> list[str] | None:
        """Where the other members were when this one last heard; None if it never did."""
        try:
            return self._others.read_text().split()
        except FileNotFoundError:
            return None

    def remember(self, others: Sequence[str]) -> None:
        """Who the others are, for a start without a member of our own that could say."""
        if list(others) != self.others():
            write_atomically(self._others, "\n".join(others).encode())

    async def begin(self) -> list[str]:
        """Arguments of the first member of a new cluster."""
        return ["--initial-cluster-state=new", f"--initial-cluster={self._name}={self.peer_url}"]

    async def join(self, others: EtcdClient) -> list[str]:
        """Become a learner of an existing cluster; return the arguments to start with."""
        backoff = Backoff(base=0.2, cap=1.0)
        while True:
            members = await others.members()
            mine = next((member for member in members if self.peer_url in member.peerURLs), None)
            if mine is None or mine.name:
                try:
                    if mine is not None:  # it had data once, and this host has none: a node left here, or lost its disk
                        await others.remove_member(mine.ID)
                    members = await others.add_learner(self.peer_url)
                except SwarmdError as problem:  # another learner is about, or too few members are healthy just now
                    log.info("waiting to join the store: %s", problem)
                    await asyncio.sleep(backoff.next())
                    continue
            urls = [
                f"{self._name if self.peer_url == url else member.name}={url}"
                for member in members
                for url in member.peerURLs
            ]
            return ["--initial-cluster-state=existing", f"--initial-cluster={','.join(urls)}"]

    async def promoted(self, client: EtcdClient) -> int:
        """Return this member's id once it votes."""
        backoff = Backoff(base=0.1, cap=1.0)
        while True:
            try:
                mine = next((m for m in await client.members() if self.peer_url in m.peerURLs), None)
                if mine is not None and not mine.isLearner:
                    return mine.ID
                if mine is not None:
                    await client.promote(mine.ID)
                    continue
            except SwarmdError as problem:
                log.info("waiting to vote in the store: %s", problem)
            await asyncio.sleep(backoff.next())

    @asynccontextmanager
    async def running(self, arguments: Sequence[str]) -> AsyncIterator[None]:
        """Keep etcd running meanwhile; raises Removed."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._supervise(arguments))
            yield
            task.cancel()

    async def upkeep(self, client: EtcdClient) -> None:
        """Defragment when most of the file is holes, and say when the store is nearly full; until cancelled."""
        while True:
            await asyncio.sleep(UPKEEP)
            try:
                status = await client.status(self.client_url)
                if status.dbSize > SPARSE and status.dbSizeInUse * 2 < status.dbSize:
                    await client.defragment(self.client_url, patience=60.0)
                if status.dbSizeInUse > QUOTA * 0.8:
                    log.warning("the cluster's store holds %d MB of %d", status.dbSizeInUse >> 20, QUOTA >> 20)
            except SwarmdError as problem:
                log.info("store not looked after: %s", problem)

    async def problem(self, client: EtcdClient) -> str:
        """What is wrong with this member, in a sentence, though others may do its work; '' if nothing is."""
        try:
            status = await client.status(self.client_url)
        except SwarmdError as silent:
            return self._why_ended or f"this manager's etcd does not answer ({silent}): see {self._log}"
        if any("NOSPACE" in error for error in status.errors):
            return f"the store of the cluster has reached its {QUOTA >> 30} GiB: remove services and tasks' history"
        return ""

    # ------------------------------------------------------------ the process

    async def _supervise(self, arguments: Sequence[str]) -> None:
        backoff = Backoff(base=0.1, cap=3.0)
        while True:
            if self._log.exists() and self._log.stat().st_size > LOG_SIZE:
                self._log.replace(self._log.with_suffix(".log.1"))
            code = await self._once(arguments)
            said = tail(self._log)
            if "has been permanently removed" in said or "removed from the cluster" in said:
                self._marker.write_text(self._certificate_digest())
                raise Removed("this node's member of the store was removed: the node is no manager any more")
            self._why_ended = f"this manager's etcd ended with {code}, and is started again: see {self._log}"
            if "no space left on device" in said:
                self._why_ended = f"the disk of {self._data} is full; free space there"
                log.error("etcd ended: %s", self._why_ended)
            log.warning("etcd ended with %d, starting it again; its log is %s", code, self._log)
            await asyncio.sleep(backoff.next())

    async def _once(self, arguments: Sequence[str]) -> int:
        with self._log.open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                # etcd must not outlive the manager, whatever ends it: a new manager starts its own.
                *("setpriv", "--pdeathsig", "KILL", "etcd", *self._arguments(), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                with suppress(TimeoutError):
                    async with asyncio.timeout(STOP):
                        await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    def _arguments(self) -> list[str]:
        files = self._files
        return [
            f"--name={self._name}",
            f"--data-dir={self._data}",
            f"--initial-cluster-token={self._token}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            *("--client-cert-auth", f"--trusted-ca-file={files.root}"),
            *(f"--cert-file={files.certificate}", f"--key-file={files.key}"),
            *("--peer-client-cert-auth", f"--peer-trusted-ca-file={files.root}"),
            *(f"--peer-cert-file={files.certificate}", f"--peer-key-file={files.key}"),
            *("--heartbeat-interval=100", "--election-timeout=1000", "--pre-vote"),
            f"--max-txn-ops={MAX_OPERATIONS}",
            f"--max-request-bytes={MAX_REQUEST}",
            f"--quota-backend-bytes={QUOTA}",
            *("--auto-compaction-mode=revision", f"--auto-compaction-retention={KEPT_REVISIONS}"),
            *("--logger=zap", "--log-outputs=stderr"),
        ]

    def _certificate_digest(self) -> str:
        return hashlib.sha256(self._files.certificate.read_bytes()).hexdigest()


def tail(path: Path, size: int = 8192) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")


async def check_version() -> None:
    """Raises FailedPrecondition when there is no etcd, or one that corrupts data."""
    try:
        process = await asyncio.create_subprocess_exec("etcd", "--version", stdout=asyncio.subprocess.PIPE)
    except FileNotFoundError:
        raise FailedPrecondition("etcd is not installed: managers need it (Debian package etcd-server)") from None
    out, _ = await process.communicate()
    version = re.search(r"etcd Version: (\S+)", out.decode(errors="replace"))
    refuse_version(version[1] if version else "of an unknown version")


def refuse_version(version: str) -> None:
    if version in CORRUPTING:
        raise FailedPrecondition(f"etcd {version} can corrupt data: install 3.4.x, or 3.5.3 or later")
    if not re.match(r"3\.([4-9]|\d\d)\.", version):
        raise FailedPrecondition(f"etcd {version} is not supported: install 3.4 or later")


class EtcdMembers:
    """etcd's own list of members; satisfies roles.Members."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    async def present(self) -> list[StoreMember]:
        return [
            StoreMember(member.ID, member.name, tuple(urlsplit(url).hostname or "" for url in member.peerURLs))
            for member in await self._client.members()
        ]

    async def remove(self, member_id: int) -> None:
        with suppress(SwarmdError, StopIteration):  # it goes all the same
            await self._hand_over(member_id)
        try:
            await self._client.remove_member(member_id)
        except SwarmdError as problem:
            raise Unavailable(f"member {member_id:x} not removed: {problem}") from None

    async def _hand_over(self, member_id: int) -> None:
        """Move raft leadership off a member that goes: the others would take 1 to 2 s to notice that it is gone."""
        members = {member.ID: member for member in await self._client.members()}
        asked = await self._client.status(self._client.current.url)
        if asked.leader == member_id != asked.header.member_id and member_id in members:
            url = next(url for url in self._client.urls if url in members[member_id].clientURLs)
            await self._client.move_leader(url, asked.header.member_id)


def client_urls(members: list[rpc.Member]) -> list[str]:
    """Where those members that vote are reached."""
    return [url for member in members if not member.isLearner for url in member.clientURLs]
