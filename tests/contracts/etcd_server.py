"""Real etcd members over mTLS for tests, each on a loopback address of its own."""

import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from swarmd.manager.ca.authority import Authority, Subject
from swarmd.manager.etcd_member import EtcdMember, MemberFiles
from swarmd.manager.store.etcd_client import EtcdClient, EtcdTLS
from swarmd.proto.tls import new_key, signing_request

# Of this process alone: members have fixed ports, and processes test side by side.
NETWORK = f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}"
# A member alone elects itself when this time is over, which in production leaves room for slow peers.
AT_ONCE = ("--heartbeat-interval=10", "--election-timeout=50")


class EtcdCluster:
    """An authority, and members that are made with certificates of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = Authority.create("etcd", "test")
        self.tls: EtcdTLS

    def member(self, number: int) -> EtcdMember:
        """The member at this number of the network; `tls` becomes its certificate."""
        address = f"{NETWORK}.{number}"
        key = new_key()
        subject = Subject(f"m{number}", "", "test", (f"m{number}", "localhost"), (address,))
        certificate = self._authority.certify(signing_request(key), subject)
        home = self._directory / f"m{number}"
        home.mkdir(exist_ok=True)
        files = MemberFiles(home / "crt", home / "key", home / "root")
        files.certificate.write_bytes(certificate)
        files.key.write_bytes(key)
        files.root.write_bytes(self._authority.certificate)
        self.tls = EtcdTLS(certificate, key, self._authority.certificate)
        return EtcdMember(f"m{number}", "test", address, home / "data", files)


@asynccontextmanager
async def one_member(directory: Path) -> AsyncIterator[tuple[EtcdCluster, EtcdMember, EtcdClient]]:
    """A cluster of one, that answers."""
    cluster = EtcdCluster(directory)
    member = cluster.member(1)
    await member.prepare()
    arguments = [*await member.begin(), *AT_ONCE]
    async with member.running(arguments):
        async with EtcdClient([member.client_url], cluster.tls) as client:
            await member.promoted(client)
            yield cluster, member, client
        kill(member)  # one that ends by itself gives its clients a second to go


def kill(member: EtcdMember) -> None:
    """kill -9 of the member's process, found by its data directory."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = (entry / "cmdline").read_bytes().split(b"\0") if (entry / "cmdline").exists() else []
            if words[0:1] == [b"etcd"] and f"--data-dir={member._data}".encode() in words:
                os.kill(int(entry.name), signal.SIGKILL)
