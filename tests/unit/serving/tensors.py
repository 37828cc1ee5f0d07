"""Builders of requests of the Open Inference Protocol."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference import open_inference_grpc_pb2 as oip
from tests.unit.serving.requests import VERSION

CONTENTS = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
} | {f"{kind}{bits}": f"{kind.lower()}_contents" for kind in ("INT", "UINT") for bits in (8, 16, 32)}
LETTERS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


@dataclass
class Tensor:
    """A tensor of one column."""

    name: str
    datatype: str
    values: Sequence[Any]
    shape: Sequence[int] | None = None

    def header(self, request: oip.ModelInferRequest) -> Any:
        shape = [len(self.values), 1] if self.shape is None else self.shape
        return request.inputs.add(name=self.name, datatype=self.datatype, shape=shape)


FITTING = [
    Tensor("size", "FP64", [1.5, 2.5]),
    Tensor("age", "INT64", [42, 43]),
    Tensor("city", "BYTES", [b"Rome", "Łódź".encode()]),
    Tensor("member", "BOOL", [True, False]),
    Tensor("since", "BYTES", [b"2024-02-29T12:00:00Z", b"2024-02-29T13:00:00+01:00"]),
]
"""Two rows that fit SIGNATURE."""


def typed(tensors: Sequence[Tensor], name: str = VERSION, **fields: Any) -> oip.ModelInferRequest:
    """A request with typed contents."""
    request = oip.ModelInferRequest(model_name=name, **fields)
    for tensor in tensors:
        contents = tensor.header(request).contents
        getattr(contents, CONTENTS.get(tensor.datatype, "fp64_contents")).extend(tensor.values)
    return request


def raw(tensors: Sequence[Tensor], name: str = VERSION, **fields: Any) -> oip.ModelInferRequest:
    """A request with raw contents."""
    request = oip.ModelInferRequest(model_name=name, **fields)
    for tensor in tensors:
        tensor.header(request)
        request.raw_input_contents.append(_packed(tensor))
    return request


def _packed(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text)) + text for text in tensor.values)
    return struct.pack(f"<{len(tensor.values)}{LETTERS.get(tensor.datatype, 'd')}", *tensor.values)
