"""Real etcd members over mTLS for tests, each on a loopback address of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from swarmd.manager.ca.authority import Authority, Subject
from swarmd.manager.etcd_member import EtcdMember, MemberFiles
from swarmd.manager.store.etcd_client import EtcdClient, EtcdTLS
from swarmd.proto.tls import new_key, signing_request


class EtcdCluster:
    """An authority, and members that are made with certificates of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = Authority.create("etcd", "test")
        self.tls: EtcdTLS

    def member(self, number: int) -> EtcdMember:
        """The member on 127.0.77.<number>; `tls` becomes its certificate."""
        address = f"127.0.77.{number}"
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
    async with EtcdClient([member.client_url], cluster.tls) as client, member.running(await member.begin()):
        await member.promoted(client)
        yield cluster, member, client
