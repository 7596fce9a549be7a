"""The writer of the revocation list, where the gateways read it. One entry is a `Revoked`.

A file is read, changed and put in place whole, by one writer at a time; in the store one command adds an entry.
Gateways read it twice a second.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import jwt
from pydantic import ValidationError

from gateway.authentication.revocation.redis_stream import stream_key
from gateway.authentication.revocation.revocation_list import Revoked
from gateway.authentication.revocation.revocation_source import RevocationDocument
from gateway.redis_client import Client
from meshgate.runtime.files import atomic_write


def of_token(token: str) -> Revoked:
    """The entry that revokes a token, by the token's own claims: nothing is verified, because a forged token is of no
    use.

    Raises ValueError for a text that is not a token, or a token without the claims that identify it.
    """
    try:
        said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        return Revoked(issuer=said["iss"], jti=said["jti"], until=int(said["exp"]))
    except jwt.PyJWTError:
        raise ValueError("not a token") from None
    except KeyError as error:
        raise ValueError(f"the token has no {error.args[0]}: revoke its subject") from None
    except (TypeError, ValueError):
        raise ValueError("the token's iss, jti or exp is invalid: revoke its subject") from None


def write_file(path: Path, entry: Revoked) -> None:
    """Adds `entry` to the list in a file, which may not exist yet; an entry with `restored` removes its like.

    Raises OSError, or ValueError for a file that is not such a list and stays as it is.
    """
    with _locked(path.parent):
        listed = [each for each in _listed(path) if _name(each) != _name(entry)]
        _put(path, listed if entry.restored else [*listed, entry])


async def write_stream(client: Client, prefix: str, entry: Revoked) -> None:
    """Adds `entry` to the stream in the store. Raises redis.RedisError, OSError or TimeoutError."""
    said = entry.model_dump(exclude_defaults=True)
    fields = {name: int(value) if value is True else value for name, value in said.items()}
    await client.xadd(stream_key(prefix), cast(Any, fields))


def _name(entry: Revoked) -> tuple[str, str | None, str | None]:
    return entry.issuer, entry.jti, entry.subject


def _listed(path: Path) -> list[Revoked]:
    try:
        return list(RevocationDocument.model_validate_json(path.read_bytes()).revoked)
    except FileNotFoundError:
        return []
    except ValidationError:
        raise ValueError("the file is not a revocation list") from None


def _put(path: Path, listed: list[Revoked]) -> None:
    content = RevocationDocument(revoked=listed).model_dump_json(exclude_defaults=True, indent=1)
    # Gateways run as other users than the operator who revokes, whatever that one's umask. The list holds no secret.
    atomic_write.write(path, (content + "\n").encode(), ignore_umask=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the directory's lock: of two operators who revoke at once, neither must lose an entry."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # released when the descriptor is closed
        yield
    finally:
        os.close(descriptor)
