"""A gRPC server on a free port of loopback, which it prints: "" and good are SERVING, bad is not, others unknown."""

from concurrent.futures import ThreadPoolExecutor

import grpc

# grpc.health.v1.HealthCheckRequest {string service = 1;} and HealthCheckResponse {ServingStatus status = 1;}
STATUSES = {b"": b"\x08\x01", b"\x0a\x04good": b"\x08\x01", b"\x0a\x03bad": b"\x08\x02"}


def check(request: bytes, context: grpc.ServicerContext) -> bytes:
    if request not in STATUSES:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return STATUSES[request]


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
