"""The published etcd3 client, made loadable: its own generated code needs a protobuf of years ago, ours does not."""

import sys
import types

from swarmd.proto import etcd_pb2, etcd_pb2_grpc

_rpc = types.ModuleType("etcd3.etcdrpc")
for _module in (etcd_pb2, etcd_pb2_grpc):
    for _name in dir(_module):
        setattr(_rpc, _name, getattr(_module, _name))
_rpc.rpc_pb2 = etcd_pb2  # type: ignore[attr-defined]
_rpc.kv_pb2 = etcd_pb2  # type: ignore[attr-defined]
sys.modules["etcd3.etcdrpc"] = _rpc

import etcd3  # noqa: E402

__all__ = ["etcd3"]
