"""Vectors travel as the contract says, in every encoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.v1 import embedding_pb2 as pb
from services.embedding import vectors

VECTOR = np.array([0.5, -1.0, 0.25, 0.0, 2.0, -0.125, 1e-3, -3.0, 0.75], dtype=np.float32)


def test_cut_then_scaled() -> None:
    shaped = vectors.shaped(VECTOR, 4, normalise=True)
    assert shaped == pytest.approx(VECTOR[:4] / np.linalg.norm(VECTOR[:4]))
    assert np.array_equal(vectors.shaped(VECTOR, 4, normalise=False), VECTOR[:4])


def test_zeros_stay_zeros() -> None:
    assert np.array_equal(vectors.shaped(np.zeros(3, np.float32), None, normalise=True), np.zeros(3))


@pytest.mark.parametrize(("encoding", "dtype"), [("FLOAT32", "<f4"), ("FLOAT16", "<f2")])
def test_packed_floats_are_little_endian(encoding: str, dtype: str) -> None:
    value = pb.EmbeddingEncoding.Value(f"EMBEDDING_ENCODING_{encoding}")
    packed = np.frombuffer(vectors.encoded(VECTOR, value).packed, dtype)
    assert packed == pytest.approx(VECTOR, rel=1e-3)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50))
def test_int8_is_within_half_a_step(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    embedding = vectors.encoded(vector, pb.EMBEDDING_ENCODING_INT8)
    back = np.frombuffer(embedding.packed, np.int8) * (embedding.scale / 127)
    assert np.abs(back - vector).max() <= embedding.scale / 127 * 0.5001


def test_a_bit_a_dimension_first_in_the_highest() -> None:
    assert vectors.encoded(VECTOR, pb.EMBEDDING_ENCODING_BINARY).packed == bytes([0b10101010, 0b10000000])


@pytest.mark.parametrize("dimensions", [0, 1, 9, 31, 32, 384, 4096, 70_000])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_a_list_is_the_default_of_any_length(dimensions: int, dtype: str) -> None:
    vector = np.resize(VECTOR, dimensions).astype(dtype)
    embedding = vectors.encoded(vector, pb.EMBEDDING_ENCODING_UNSPECIFIED)
    assert np.array_equal(np.array(embedding.floats.values, np.float32), np.resize(VECTOR, dimensions))
