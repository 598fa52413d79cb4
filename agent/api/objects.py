"""The managers' objects by kind: what handlers read and write through this node's manager."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from aiohttp import web

from swarmd.agent.api.interface import Control, services
from swarmd.proto import control_pb2 as control_pb
from swarmd.proto import objects_pb2 as pb

Kind: TypeAlias = control_pb.Kind.ValueType


def control(request: web.Request) -> Control:
    return services(request).membership.control()


async def get(request: web.Request, kind: Kind, ref: str) -> pb.Object:
    return await control(request).Get(control_pb.GetRequest(kind=kind, ref=ref))


async def everything(
    request: web.Request, kind: Kind, filters: Mapping[str, Sequence[str]] | None = None
) -> list[pb.Object]:
    wanted = {name: control_pb.Values(values=values) for name, values in (filters or {}).items()}
    batches = control(request).List(control_pb.ListRequest(kind=kind, filters=wanted))
    return [obj async for batch in batches for obj in batch.objects]


async def create(request: web.Request, obj: pb.Object) -> control_pb.WriteResponse:
    return await control(request).Create(control_pb.CreateRequest(object=obj))


async def update(request: web.Request, obj: pb.Object, *, rollback: bool = False) -> control_pb.WriteResponse:
    return await control(request).Update(control_pb.UpdateRequest(object=obj, rollback=rollback))


async def remove(request: web.Request, kind: Kind, ref: str, *, force: bool = False) -> None:
    await control(request).Remove(control_pb.RemoveRequest(kind=kind, ref=ref, force=force))
