"""CA.Renew: certifies a member again, in the role that it now has.  Served on the cluster port."""

from typing import Any

from swarmd.manager.ca.certifier import Certifier
from swarmd.proto import ca_pb2_grpc
from swarmd.proto.ca_pb2 import Identity, RenewRequest
from swarmd.proto.tls import peer_identity


class CAService(ca_pb2_grpc.CAServicer):
    def __init__(self, certifier: Certifier) -> None:
        self._certifier = certifier

    async def Renew(self, request: RenewRequest, context: Any) -> Identity:
        return await self._certifier.renew(peer_identity(context).node_id, request)
