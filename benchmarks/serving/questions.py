"""The same rows as each server wants to be asked, and how its predictions are read off its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from easyml.v1 import prediction_service_pb2 as pb
from inference import open_inference_grpc_pb2 as oip

Read = Callable[[bytes], list[str]]


@dataclass(frozen=True)
class Question:
    """What is sent, and how the answer is read."""

    body: bytes
    read: Read


def typed_columns(frame: pd.DataFrame, version_id: str) -> Question:
    """PredictionService in typed columns."""
    request = pb.PredictRequest(model_version_id=version_id)
    for name, values in frame.items():
        column = request.columns.columns.add(name=str(name))
        {"f": column.doubles, "i": column.int64s}.get(values.dtype.kind, column.strings).values.extend(values.tolist())
    return Question(
        request.SerializeToString(),
        lambda answer: list(pb.PredictResponse.FromString(answer).predictions.strings.values),
    )


def tensors(frame: pd.DataFrame, model: str) -> Question:
    """The Open Inference Protocol with a tensor per column; numbers as the pipeline takes them."""
    request = oip.ModelInferRequest(model_name=model)
    request.parameters["content_type"].string_param = "pd"
    for name, values in frame.items():
        numeric = values.dtype.kind in "fi"
        tensor = request.inputs.add(name=str(name), datatype="FP64" if numeric else "BYTES", shape=[len(values), 1])
        if numeric:
            tensor.contents.fp64_contents.extend(values.astype(float).tolist())
        else:
            tensor.parameters["content_type"].string_param = "str"
            tensor.contents.bytes_contents.extend(text.encode() for text in values)
    return Question(request.SerializeToString(), _tensor_of_texts)


def split_frame(frame: pd.DataFrame) -> Question:
    """MLflow's `dataframe_split`."""
    body = {"dataframe_split": {"columns": list(frame.columns), "data": _rows(frame)}}
    return Question(json.dumps(body).encode(), lambda answer: json.loads(answer)["predictions"])


def json_rows(frame: pd.DataFrame, read: Callable[[Any], list[str]]) -> Question:
    """Rows as lists, by whatever the server's own code makes of them."""
    return Question(json.dumps({"rows": _rows(frame)}).encode(), lambda answer: read(json.loads(answer)))


def _rows(frame: pd.DataFrame) -> list[list[Any]]:
    """Whole numbers as the pipeline takes them, so that nobody converts them on the way."""
    numbers = frame.select_dtypes("number").columns
    return frame.astype(dict.fromkeys(numbers, float)).to_numpy(dtype=object).tolist()


def _tensor_of_texts(answer: bytes) -> list[str]:
    response = oip.ModelInferResponse.FromString(answer)
    if response.outputs[0].contents.bytes_contents:
        return [text.decode() for text in response.outputs[0].contents.bytes_contents]
    raw, texts, place = response.raw_output_contents[0], [], 0
    while place < len(raw):
        length = int.from_bytes(raw[place : place + 4], "little")
        texts.append(raw[place + 4 : place + 4 + length].decode())
        place += 4 + length
    return texts
