"""Tensors of the Open Inference Protocol, read as the columns of a table and written as answers.

Each column is a tensor of its own, with the column's name and the shape [rows] or [rows, 1]. BYTES are text in UTF-8;
points in time are texts in ISO 8601 or INT64 microseconds since 1970. The protocol has no missing values: NaN is one in
a column of numbers, as everywhere; in other columns nothing is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from easyml_server.domain.datasets import StorageType
from easyml_server.domain.errors import InvalidInput
from easyml_server.domain.models import Signature, SignatureColumn
from easyml_server.serving import faults
from easyml_server.serving.layout import RawColumn, RawTable
from easyml_server.serving.notes import Answered
from easyml_server.serving.tables import LARGEST_INT64, Elsewhere, TableReader, accept
from inference import open_inference_grpc_pb2 as pb

BYTES: Final = "BYTES"
LENGTH_BYTES: Final = 4
_SHOWN_DIMENSIONS: Final = 8
IGNORED_PARAMETERS: Final = frozenset({"content_type", "binary_data", "binary_data_output", "binary_data_size"})
"""Said by clients that speak REST too, about a packing that gRPC does not have."""


class _Form(NamedTuple):
    """How a datatype is sent: its field of typed contents, its raw layout, and the kind of column it makes."""

    contents: str
    raw: str
    kind: str


_FORMS: Final = {
    "BOOL": _Form("bool_contents", "?", "bools"),
    "INT8": _Form("int_contents", "<i1", "int64s"),
    "INT16": _Form("int_contents", "<i2", "int64s"),
    "INT32": _Form("int_contents", "<i4", "int64s"),
    "INT64": _Form("int64_contents", "<i8", "int64s"),
    "UINT8": _Form("uint_contents", "<u1", "int64s"),
    "UINT16": _Form("uint_contents", "<u2", "int64s"),
    "UINT32": _Form("uint_contents", "<u4", "int64s"),
    "UINT64": _Form("uint64_contents", "<u8", "int64s"),
    "FP16": _Form("", "<f2", "doubles"),
    "FP32": _Form("fp32_contents", "<f4", "doubles"),
    "FP64": _Form("fp64_contents", "<f8", "doubles"),
    BYTES: _Form("bytes_contents", "", "strings"),
}
_CONTENTS: Final = tuple(dict.fromkeys(form.contents for form in _FORMS.values() if form.contents))
DATATYPES: Final = {
    StorageType.DOUBLE: "FP64",
    StorageType.INT64: "INT64",
    StorageType.BOOL: "BOOL",
    StorageType.STRING: BYTES,
    StorageType.TIMESTAMP: BYTES,
}
"""What the metadata says of a column; others that mean the same are taken too."""
_RESULTS: Final = {"FP64": np.dtype("<f8"), "INT64": np.dtype("<i8"), "BOOL": np.dtype("?")}
_RESULT_CONTENTS: Final = {datatype: _FORMS[datatype].contents for datatype in (*_RESULTS, BYTES)}


class Output(NamedTuple):
    """A tensor that a model answers with."""

    name: str
    datatype: str
    columns: int


def outputs_of(signature: Signature) -> tuple[Output, ...]:
    """The predictions, named as the target, and the probability of each class, where the model has them."""
    predictions = Output(signature.output, DATATYPES[signature.output_type], 1)
    if not signature.predicts_probabilities:
        return (predictions,)
    return predictions, Output(f"{signature.output}_probabilities", "FP64", len(signature.classes))


def read_table(request: pb.ModelInferRequest, reader: TableReader) -> RawTable:
    """The table of a request. Raises InvalidInput where its tensors do not fit the signature."""
    _check_parameters(request.parameters, "parameters")
    columns: list[RawColumn | None] = [None] * len(reader.columns)
    rows = -1
    for tensor in _tensors(request):
        position = reader.position(tensor.name, f"{tensor.field}.name")
        if columns[position] is not None:
            raise InvalidInput.at(f"{tensor.field}.name", f"Tensor {tensor.quoted} is there twice; send it once.")
        _check_parameters(tensor.sent.parameters, f"{tensor.field}.parameters")
        if rows < 0:
            rows = tensor.rows()
            reader.check_size(rows, f"{tensor.field}.shape")
        elif tensor.rows() != rows:
            raise InvalidInput.at(
                f"{tensor.field}.shape",
                f"Tensor {tensor.quoted} has {tensor.rows()} rows where others have {rows}; send one per row.",
            )
        columns[position] = _column(tensor, reader.columns[position], rows)
    if rows < 0:
        raise faults.missing_columns((column.name for column in reader.columns), "inputs")
    return RawTable(rows, reader.complete(columns, "inputs"))


def wanted(request: pb.ModelInferRequest, outputs: Sequence[Output]) -> Sequence[int]:
    """Positions of the outputs that a request names, or of all. Raises InvalidInput."""
    if not request.outputs:
        return range(len(outputs))
    positions = {output.name: position for position, output in enumerate(outputs)}
    chosen = []
    for number, output in enumerate(request.outputs):
        field = f"outputs[{number}]"
        _check_parameters(output.parameters, f"{field}.parameters")
        if output.name not in positions:
            known = ", ".join(faults.quoted(name) for name in positions)
            raise InvalidInput.at(
                f"{field}.name", f"The model has no output {faults.quoted(output.name)}; it has {known}."
            )
        chosen.append(positions[output.name])
    return chosen


def write_outputs(
    response: pb.ModelInferResponse,
    answered: Answered,
    signature: Signature,
    outputs: Sequence[Output],
    chosen: Sequence[int],
    *,
    raw: bool,
) -> None:
    """The chosen outputs, raw where the inputs were."""
    answers, notes = answered
    arrays = [answers.predictions]
    if answers.probabilities is not None:
        arrays.append(answers.probabilities)
    for position in chosen:
        output, array = outputs[position], arrays[position]
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=[len(array), output.columns])
        if position:
            tensor.parameters["classes"].string_param = json.dumps(signature.classes)
        if raw:
            response.raw_output_contents.append(_raw(array, output.datatype))
        else:
            getattr(tensor.contents, _RESULT_CONTENTS[output.datatype]).extend(_list(array, output.datatype))
    if notes is not None:
        response.parameters["noted_cells"].int64_param = len(notes.kept) + notes.omitted


def _list(array: NDArray[Any], datatype: str) -> list[Any]:
    if datatype == BYTES:
        return [text.encode() for text in array.ravel().tolist()]
    return list(array.astype(_RESULTS[datatype], copy=False).ravel().tolist())


def _raw(array: NDArray[Any], datatype: str) -> bytes:
    if datatype == BYTES:
        texts = _list(array, BYTES)
        return b"".join(len(text).to_bytes(LENGTH_BYTES, "little") + text for text in texts)
    return np.ascontiguousarray(array, _RESULTS[datatype]).tobytes()


class _Tensor:
    """An input of a request, and its raw contents, if they are raw."""

    def __init__(self, number: int, sent: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> None:
        self.sent = sent
        self.field = f"inputs[{number}]"
        self.raw_field = f"raw_input_contents[{number}]"
        self._raw = raw

    @property
    def name(self) -> str:
        return self.sent.name

    @property
    def quoted(self) -> str:
        return faults.quoted(self.sent.name)

    def form(self) -> _Form:
        form = _FORMS.get(self.sent.datatype)
        if form is None:
            raise InvalidInput.at(
                f"{self.field}.datatype",
                f"Tensor {self.quoted} has the datatype {faults.quoted(self.sent.datatype)}; send one of "
                f"{', '.join(_FORMS)}.",
            )
        return form

    def rows(self) -> int:
        """How many rows it says it has."""
        shape = list(self.sent.shape)
        if not shape or shape[0] < 0 or shape[1:] not in ([], [1]):
            raise InvalidInput.at(
                f"{self.field}.shape",
                f"Tensor {self.quoted} has the shape {shape[:_SHOWN_DIMENSIONS]}; a column has [rows] or [rows, 1].",
            )
        return shape[0]

    def values(self, rows: int) -> Sequence[Any]:
        """One per row."""
        return self._typed(rows) if self._raw is None else self._unpacked(self._raw, rows)

    def _typed(self, rows: int) -> Sequence[Any]:
        form, contents = self.form(), self.sent.contents
        if not form.contents:
            raise InvalidInput.at(
                f"{self.field}.contents",
                f"{self.sent.datatype} travels in raw_input_contents only; send FP32, or raw contents.",
            )
        for other in _CONTENTS:
            if other != form.contents and len(getattr(contents, other)):
                raise InvalidInput.at(
                    f"{self.field}.contents.{other}",
                    f"Tensor {self.quoted} is {self.sent.datatype}; its values go into {form.contents}.",
                )
        values: Sequence[Any] = getattr(contents, form.contents)
        if len(values) != rows:
            raise InvalidInput.at(
                f"{self.field}.contents.{form.contents}",
                f"Tensor {self.quoted} has {len(values)} values where its shape says {rows}.",
            )
        return values

    def _unpacked(self, raw: bytes, rows: int) -> Sequence[Any]:
        if self.sent.HasField("contents"):
            raise InvalidInput.at(
                f"{self.field}.contents", "Where raw_input_contents is there, contents must not be; send one of both."
            )
        form = self.form()
        if not form.raw:
            return self._texts(raw, rows)
        dtype = np.dtype(form.raw)
        if len(raw) != rows * dtype.itemsize:
            raise InvalidInput.at(
                self.raw_field,
                f"Tensor {self.quoted} has {len(raw)} raw bytes where {rows} values of {self.sent.datatype} take "
                f"{rows * dtype.itemsize}.",
            )
        values: Sequence[Any] = np.frombuffer(raw, dtype).tolist()
        return values

    def _texts(self, raw: bytes, rows: int) -> list[bytes]:
        """BYTES one after the other, each behind its length."""
        texts: list[bytes] = []
        place = 0
        while place < len(raw) and len(texts) < rows:
            start = place + LENGTH_BYTES
            place = start + int.from_bytes(raw[place:start], "little")
            texts.append(raw[start:place])
        if place != len(raw) or len(texts) != rows:
            raise InvalidInput.at(
                self.raw_field,
                f"The raw bytes of tensor {self.quoted} are not {rows} texts, each behind its length as four bytes, "
                "little-endian.",
            )
        return texts


def _tensors(request: pb.ModelInferRequest) -> Iterator[_Tensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput.at(
            "raw_input_contents",
            f"There are {len(raw)} raw contents for {len(request.inputs)} inputs; send one for each, in their order, "
            "or none.",
        )
    for number, sent in enumerate(request.inputs):
        yield _Tensor(number, sent, raw[number] if raw else None)


def _column(tensor: _Tensor, column: SignatureColumn, rows: int) -> RawColumn:
    """The values of a tensor as values of the signature's type."""
    kind, values = tensor.form().kind, tensor.values(rows)
    match kind, column.storage_type:
        case "strings", _:
            values = _decoded(tensor, values)
        case "int64s", StorageType.TIMESTAMP:
            kind = "timestamps"
        case "int64s", StorageType.INT64 if max(values) > LARGEST_INT64:
            raise faults.wrong_type(column, tensor.field, "a number that 64 bits with a sign do not hold")
        case "doubles", StorageType.INT64:
            empty = next((row for row, value in enumerate(values) if math.isnan(value)), None)
            if empty is not None:
                raise faults.wrong_type(column, tensor.field, "NaN, and tensors have no sign for no value", empty)
    return accept(column, kind, values, (), Elsewhere(tensor.field))


def _decoded(tensor: _Tensor, values: Sequence[bytes]) -> list[str]:
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError as error:
            raise InvalidInput.at(
                tensor.field, f"Tensor {tensor.quoted} has bytes in row {row} that are no text in UTF-8; send UTF-8."
            ) from error
    return texts


def _check_parameters(parameters: Any, field: str) -> None:
    for name in parameters:
        if name not in IGNORED_PARAMETERS:
            raise InvalidInput.at(
                f"{field}[{faults.shortened(name)!r}]",
                f"The parameter {faults.quoted(name)} does nothing here; leave it out.",
            )
