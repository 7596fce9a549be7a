"""The SDK: channels to a gateway on which generated stubs work unchanged.

    from meshgate import client
    from meshgate.v1 import generation_pb2, generation_pb2_grpc

    with client.connect("127.0.0.1:8443", ca="ca.pem", token=Path("token"), sealed=True) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        try:
            reply = stub.Generate(generation_pb2.GenerateRequest(prompt="Gravity is"), timeout=30)
        except grpc.RpcError as error:
            print(client.explain(error).reason)

`connect(**settings())` reads MESHGATE_TARGET, MESHGATE_CA, and MESHGATE_TOKEN or MESHGATE_TOKEN_FILE, as the command
does.
`connect_aio` (or `client.aio.connect`) is the same for asyncio. The token, the seals and the retries are the channel's
business: the user changes the channel, not the calls.
"""

from meshgate.client import aio
from meshgate.client.aio import connect as connect_aio
from meshgate.client.blocking import connect
from meshgate.client.environment import settings
from meshgate.client.failure import CallFailed, explain

__all__ = ["CallFailed", "aio", "connect", "connect_aio", "explain", "settings"]
