"""`python -m bench.passthrough`: the least a Python gateway could do. bytes copied, no policy."""

from __future__ import annotations

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

from meshgate.rpc import channel, server, tls


class PassThrough(grpc.GenericRpcHandler):
    """Forwards calls of any method: those named `...Stream` stream their replies, all others are unary."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)
        return self._stream(method) if method.endswith("Stream") else self._unary(method)

    def _unary(self, method: str) -> Any:
        forward = self._backend.unary_unary(method)

        async def serve(request: bytes, context: Any) -> Any:
            return await forward(request, timeout=context.time_remaining())

        return grpc.unary_unary_rpc_method_handler(serve)

    def _stream(self, method: str) -> Any:
        forward = self._backend.unary_stream(method)

        async def serve(request: bytes, context: Any) -> None:
            replies = forward(request, timeout=context.time_remaining())
            while (reply := await replies.read()) is not channel.EOF:
                await context.write(reply)

        return grpc.unary_stream_rpc_method_handler(serve)


async def main() -> int:
    """Serves until the stop signal."""
    parser = argparse.ArgumentParser()
    for name in ("--listen", "--target"):
        parser.add_argument(name, required=True)
    parser.add_argument("--certs", type=Path, required=True)
    flags = parser.parse_args()
    certs: Path = flags.certs
    mesh = tls.TlsConfig(certificate=certs / "gateway.pem", key=certs / "gateway-key.pem", ca=certs / "ca.pem")
    edge = mesh.model_copy(update={"require_client_certificate": False})
    made = grpc.aio.server(options=server.server_options(channel.MAX_MESSAGE_BYTES))
    backend = channel.open_channel(flags.target, tls.channel_credentials(mesh), part="embedding")
    made.add_generic_rpc_handlers((PassThrough(backend),))
    server.bind(made, flags.listen, edge)
    await made.start()
    await made.wait_for_termination()
    return 0


if __name__ == "__main__":
    uvloop.install()
    sys.exit(asyncio.run(main()))
