"""Requests of the V2 inference protocol (KServe). Its published stubs need another protobuf release than ours, so the
few fields that a request has are described here, with the protocol's own numbers, and protobuf encodes them.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_FIELDS: Final = """
    name: "bench_v2.proto" package: "inference" syntax: "proto3"
    message_type { name: "InferTensorContents"
        field { name: "bytes_contents" number: 8 type: TYPE_BYTES label: LABEL_REPEATED } }
    message_type { name: "InferInputTensor"
        field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
        field { name: "datatype" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
        field { name: "shape" number: 3 type: TYPE_INT64 label: LABEL_REPEATED }
        field { name: "contents" number: 5 type_name: ".inference.InferTensorContents" label: LABEL_OPTIONAL } }
    message_type { name: "ModelInferRequest"
        field { name: "model_name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
        field { name: "inputs" number: 5 type_name: ".inference.InferInputTensor" label: LABEL_REPEATED } }
"""
"""The protocol's messages, as far as a request of one text uses them."""


def _request_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_FIELDS, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferRequest"))


_Request: Final = _request_class()


def request(model: str, text: str) -> bytes:
    """A serialised ModelInferRequest of one text."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "contents": {"bytes_contents": [text.encode()]}}
    encoded: bytes = _Request(model_name=model, inputs=[tensor]).SerializeToString()
    return encoded
