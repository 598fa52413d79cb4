"""A renewed certificate reaches etcd without a restart: the channel is made anew, the watch goes on."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.manager import backend
from swarmd.manager.etcd_member import MemberFiles
from swarmd.manager.store import etcd_client
from swarmd.manager.store.etcd import open_store
from swarmd.manager.store.etcd_client import EtcdClient
from swarmd.manager.store.interface import Tx
from swarmd.proto.clock import SystemClock
from swarmd.proto.objects_pb2 import Task
from tests.contracts.etcd_server import one_member


async def test_the_watch_and_transactions_go_on_with_a_new_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        one_member(tmp_path) as (cluster, member, other),
        EtcdClient([member.client_url], cluster.tls) as client,
        open_store(client, SystemClock()) as store,
        open_store(other, SystemClock()) as elsewhere,
    ):
        old = client.current.channel
        cluster.member(1)  # certified again
        with monkeypatch.context() as quicker:
            quicker.setattr(etcd_client, "PATIENCE", 0.1)  # for the watch, which only ends with it
            await client.renew(cluster.tls)
        assert client.current.channel is not old

        def put(tx: Tx) -> None:
            tx.put(Task(id="after"))

        await elsewhere.transact(put)
        async with asyncio.timeout(10), store.view_and_watch() as (view, commits):
            if not view.find(Task):
                await anext(aiter(commits))
        assert [task.id for task in store.view().find(Task)] == ["after"]
        await store.transact(lambda tx: tx.put(Task(id="own")))


async def test_a_manager_s_client_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "LOOK_AGAIN", 0.01)
    async with one_member(tmp_path) as (cluster, member, _), EtcdClient([member.client_url], cluster.tls) as client:
        home = tmp_path / "m1"
        files = MemberFiles(home / "crt", home / "key", home / "root")
        renewed = asyncio.Event()
        whole = client.renew

        async def noted(tls: object) -> None:
            await whole(tls)  # type: ignore[arg-type]
            renewed.set()

        client.renew = noted  # type: ignore[method-assign, assignment]
        task = asyncio.create_task(backend._follow_certificate(client, files, replace(cluster.tls)))
        try:
            cluster.member(1)  # writes a new key and certificate
            async with asyncio.timeout(10):
                await renewed.wait()
            await client.members()
        finally:
            task.cancel()
