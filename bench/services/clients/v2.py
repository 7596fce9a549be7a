"""Requests of the V2 inference protocol (KServe), as bytes: its generated code needs another protobuf than ours."""

from __future__ import annotations

from typing import Final

INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


def request(model: str, text: str) -> bytes:
    """A ModelInferRequest of one text: model_name = 1, inputs = 5."""
    return _field(1, model.encode()) + _field(5, _input(text))


def _input(text: str) -> bytes:
    """An InferInputTensor: name = 1, datatype = 2, shape = 3 (packed), contents = 5, in that bytes_contents = 8."""
    contents = _field(8, text.encode())
    return _field(1, b"text") + _field(2, b"BYTES") + _field(3, bytes([1, 1])) + _field(5, contents)


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])
