"""Embeds a file in bulk and finds, for each line, the one most like it.

    python examples/bulk_embed.py TEXTS     (with MESHGATE_TARGET, MESHGATE_CA and MESHGATE_TOKEN_FILE, as the CLI's)

One EmbedStream carries it all: requests leave while replies come, replies are in order, and a reader that is slow slows
the sender, so that no more than a few messages are in memory. Vectors travel as float16, a quarter of a list of floats.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from meshgate import client
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import embedding_pb2_grpc

LINES = 64
"""In one message."""


def requests(texts: Path) -> Iterator[pb.EmbedStreamRequest]:
    """The lines of a file, in messages. gRPC takes the next one when there is room for it."""
    options = pb.EmbedOptions(encoding=pb.EMBEDDING_ENCODING_FLOAT16, truncation=pb.TRUNCATION_END)
    with texts.open(encoding="utf-8") as file:
        lines = (line.strip() for line in file)
        while chunk := list(islice(filter(None, lines), LINES)):
            yield pb.EmbedStreamRequest(request=pb.EmbedRequest(inputs=chunk, options=options))


def vectors(texts: Path) -> Iterator[tuple[float, ...]]:
    """One vector, of norm 1, for each line that is not blank."""
    target = os.environ.get("MESHGATE_TARGET", "127.0.0.1:8443")
    token = Path(os.environ["MESHGATE_TOKEN_FILE"])
    with client.connect(target, ca=os.environ["MESHGATE_CA"], token=token) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        for reply in stub.EmbedStream(requests(texts), timeout=600):
            for embedding in reply.response.embeddings:
                yield struct.unpack(f"<{reply.response.dimensions}e", embedding.packed)


def main() -> None:
    texts = Path(sys.argv[1])
    made = list(vectors(texts))
    lines = [line.strip() for line in texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    for index, vector in enumerate(made):
        likeness = [(sum(map(float.__mul__, vector, other)), at) for at, other in enumerate(made) if at != index]
        best, at = max(likeness)
        sys.stdout.write(f"{best:.3f}  {lines[index]}  ~  {lines[at]}\n")


if __name__ == "__main__":
    main()
