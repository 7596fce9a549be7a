"""The steps of a pooled vector before it is sent: cut, scaled to norm 1, and encoded as the contract says."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from meshgate.errors import Internal, InvalidArgument
from meshgate.v1 import embedding_pb2 as pb

Vector = NDArray[np.float32]
_INT8_MAX = 127
_HALF_MAX: Final = float(np.finfo(np.float16).max)


def shaped(vector: Vector, dimensions: int | None, *, normalise: bool) -> Vector:
    """The first `dimensions` values, scaled to norm 1 where asked; a vector of zeros stays. Raises Internal for a
    vector that holds something that is no number: it must not look like one.
    """
    kept = vector[:dimensions]
    norm = float(np.linalg.norm(kept.astype(np.float64)))  # the squares of what float32 holds can be too large for it
    if not math.isfinite(norm):
        raise Internal("the model failed to run this input")
    return kept if not normalise or norm in (0.0, 1.0) else np.asarray(kept / norm, dtype=np.float32)


def encoded(vector: Vector, encoding: pb.EmbeddingEncoding.ValueType) -> pb.Embedding:
    """An Embedding that carries `vector` in `encoding`."""
    match encoding:
        case pb.EMBEDDING_ENCODING_FLOAT32:
            return pb.Embedding(packed=vector.astype("<f4").tobytes())
        case pb.EMBEDDING_ENCODING_FLOAT16:
            return pb.Embedding(packed=_halves(vector))
        case pb.EMBEDDING_ENCODING_INT8:
            return _int8(vector)
        case pb.EMBEDDING_ENCODING_BINARY:
            return pb.Embedding(packed=np.packbits(vector > 0).tobytes())
    return pb.Embedding(floats=pb.FloatVector(values=vector.tolist()))


def _halves(vector: Vector) -> bytes:
    """In float16. Raises InvalidArgument for numbers that it can't hold."""
    if float(np.abs(vector).max(initial=0.0)) > _HALF_MAX:
        raise InvalidArgument.of("options.encoding", "the vector has numbers that are too large for float16")
    return vector.astype("<f2").tobytes()


def _int8(vector: Vector) -> pb.Embedding:
    scale = float(np.abs(vector).max(initial=0.0))
    # In float64, where the ratio to a scale that float32 barely holds is still a number.
    steps = np.rint(vector.astype(np.float64) / scale * _INT8_MAX) if scale else np.zeros_like(vector)
    return pb.Embedding(packed=steps.astype(np.int8).tobytes(), scale=scale)
