"""The SDK's tokens in one place: what one is, and the sources of both kinds of channel."""

from meshgate.client.aio.token_source import AsyncTokenSource
from meshgate.client.blocking.token_source import TokenSource
from meshgate.client.token_cache import AsyncTokenOrigin, Token, TokenOrigin, parse

__all__ = ["AsyncTokenOrigin", "AsyncTokenSource", "Token", "TokenOrigin", "TokenSource", "parse"]
