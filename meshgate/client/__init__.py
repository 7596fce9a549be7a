"""The SDK: channels on which the generated stubs work unchanged, plain or sealed.

    channel = connect("gateway:8443", ca="ca.pem", token=Path("/run/token"), sealed=True)
    stub = GenerationServiceStub(channel)

`connect` gives a channel for the synchronous stubs, `connect_aio` one for asyncio. The token may be its text, a file
that something else keeps fresh, or a function; it is renewed before it expires. A call that fails raises grpc.RpcError,
of which `explain` makes a MeshError with reason, request id and fields. Overload (UNAVAILABLE) is retried by gRPC as
the server asks; a limit (RESOURCE_EXHAUSTED) never is. What does not open, of sealed replies, raises InvalidArgument.
"""

from __future__ import annotations

from meshgate.client.connect import connect, connect_aio
from meshgate.runtime.status import from_rpc_error as explain

__all__ = ["connect", "connect_aio", "explain"]
