"""Embeds a file in bulk and finds, for each line, the one most like it.

    python examples/bulk_embed.py TEXTS

One EmbedStream carries all texts: requests leave while replies come, and replies are in order. A slow reader slows the
sender, so that only a few messages are in memory. Vectors travel as float16, a quarter of a list of floats.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import connection
import grpc

from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import embedding_pb2_grpc

LINES = 64
"""In one message."""


def requests(texts: list[str]) -> Iterator[pb.EmbedStreamRequest]:
    """The texts, in messages. gRPC takes the next one when there is room for it."""
    options = pb.EmbedOptions(encoding=pb.EMBEDDING_ENCODING_FLOAT16, truncation=pb.TRUNCATION_END)
    for start in range(0, len(texts), LINES):
        yield pb.EmbedStreamRequest(request=pb.EmbedRequest(inputs=texts[start : start + LINES], options=options))


def vectors(channel: grpc.Channel, texts: list[str]) -> Iterator[tuple[float, ...]]:
    """One vector, of norm 1, for each text."""
    stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    for reply in stub.EmbedStream(requests(texts), timeout=600):
        for embedding in reply.response.embeddings:
            yield struct.unpack(f"<{reply.response.dimensions}e", embedding.packed)


def lines() -> list[str]:
    """The lines of the file that are not blank."""
    if len(sys.argv) != 2:
        connection.fail("name a file with a text on each line")
    try:
        found = [line.strip() for line in Path(sys.argv[1]).read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError:
        connection.fail(f"{sys.argv[1]}: not UTF-8")
    if len(found) < 2:
        connection.fail(f"{sys.argv[1]}: at least two lines of text are needed")
    return found


def main(channel: grpc.Channel) -> None:
    texts = lines()
    made = list(vectors(channel, texts))
    for index, vector in enumerate(made):
        likeness = [(sum(map(float.__mul__, vector, other)), at) for at, other in enumerate(made) if at != index]
        best, at = max(likeness)
        connection.say(f"{best:.3f}  {texts[index]}  ~  {texts[at]}\n")


if __name__ == "__main__":
    connection.run(main)
