"""Tensors of the Open Inference Protocol: what does not fit is told with its place, what fits means what columns do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from easyml_server.domain.datasets import StorageType
from easyml_server.domain.errors import InvalidInput, Reason
from easyml_server.domain.models import Signature
from easyml_server.serving.notes import Answered
from easyml_server.serving.predictors import Answers
from easyml_server.serving.tables import TableLimits, TableReader
from easyml_server.serving.tensors import outputs_of, read_table, wanted, write_outputs
from inference import open_inference_grpc_pb2 as oip
from tests.unit.serving.requests import SIGNATURE
from tests.unit.serving.tensors import FITTING, Tensor, raw, typed

READER = TableReader(SIGNATURE, TableLimits(max_predict_rows=5, max_predict_cells=1000))


def read(request: oip.ModelInferRequest) -> list[list[Any]]:
    return [list(column.values) for column in read_table(request, READER).columns]


def refused(request: oip.ModelInferRequest) -> tuple[Reason, str, str]:
    with pytest.raises(InvalidInput) as caught:
        read_table(request, READER)
    fields = [violation.field for violation in caught.value.violations]
    return caught.value.reason, fields[0] if fields else "", caught.value.message


def changed(name: str, datatype: str | None = None, values: Sequence[Any] | None = None, **more: Any) -> list[Tensor]:
    """Tensors that fit, with one changed."""
    return [
        Tensor(each.name, datatype or each.datatype, values if values is not None else each.values, **more)
        if each.name == name
        else each
        for each in FITTING
    ]


EXPECTED = [[1.5, 2.5], [42, 43], ["Rome", "Łódź"], [True, False], [1_709_208_000_000_000] * 2]


@pytest.mark.parametrize("pack", [typed, raw])
def test_tensors_that_fit_are_the_columns_of_the_signature_in_any_order(pack: Any) -> None:
    assert read(pack(FITTING)) == EXPECTED
    assert read(pack(FITTING[::-1])) == EXPECTED


@pytest.mark.parametrize("pack", [typed, raw])
@pytest.mark.parametrize("datatype", ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"])
def test_whole_numbers_of_any_width_fit_numbers(pack: Any, datatype: str) -> None:
    assert read(pack(changed("age", datatype))) == EXPECTED
    assert read(pack(changed("size", datatype, [1, 2])))[0] == [1, 2]


@pytest.mark.parametrize(("pack", "datatype"), [(typed, "FP32"), (raw, "FP32"), (raw, "FP16"), (typed, "FP64")])
def test_floats_of_any_width_fit_numbers_and_whole_ones_fit_whole_numbers(pack: Any, datatype: str) -> None:
    assert read(pack(changed("size", datatype))) == EXPECTED
    assert read(pack(changed("age", datatype, [42.0, 43.0]))) == EXPECTED


@pytest.mark.parametrize("pack", [typed, raw])
def test_times_are_texts_or_microseconds(pack: Any) -> None:
    assert read(pack(changed("since", "INT64", [1_709_208_000_000_000] * 2))) == EXPECTED


def test_a_column_may_be_a_vector() -> None:
    assert read(typed(changed("size", shape=[2]))) == EXPECTED


@pytest.mark.parametrize("pack", [typed, raw])
@pytest.mark.parametrize(
    ("tensors", "reason", "field", "says"),
    [
        ([], Reason.MISSING_COLUMN, "inputs", "'size', 'age'"),
        (FITTING[1:], Reason.MISSING_COLUMN, "inputs", "'size'"),
        ([*FITTING, FITTING[0]], Reason.INVALID_FIELD, "inputs[5].name", "twice"),
        ([*FITTING, Tensor("sise", "FP64", [1.0, 2.0])], Reason.UNKNOWN_COLUMN, "inputs[5].name", "'size'"),
        (changed("size", "FP8"), Reason.INVALID_FIELD, "inputs[0].datatype", "FP8"),
        (changed("size", "BYTES", [b"1", b"2"]), Reason.WRONG_COLUMN_TYPE, "inputs[0]", "numbers"),
        (changed("city", "INT64", [1, 2]), Reason.WRONG_COLUMN_TYPE, "inputs[2]", "text"),
        (changed("member", "INT64", [1, 0]), Reason.WRONG_COLUMN_TYPE, "inputs[3]", "true or false"),
        (changed("age", "FP64", [1.5, 2.0]), Reason.WRONG_COLUMN_TYPE, "inputs[1]", "fraction"),
        (changed("age", "FP64", [1.0, float("nan")]), Reason.WRONG_COLUMN_TYPE, "inputs[1]", "NaN"),
        (changed("age", "UINT64", [1, 2**63]), Reason.WRONG_COLUMN_TYPE, "inputs[1]", "64 bits"),
        (changed("since", values=[b"now", b"then"]), Reason.WRONG_COLUMN_TYPE, "inputs[4]", "ISO 8601"),
        (changed("city", values=[b"Rome", b"\xff"]), Reason.INVALID_FIELD, "inputs[2]", "row 1"),
        (changed("size", shape=[]), Reason.INVALID_FIELD, "inputs[0].shape", "[rows, 1]"),
        (changed("size", shape=[1, 2]), Reason.INVALID_FIELD, "inputs[0].shape", "[1, 2]"),
        (changed("size", shape=[2, 1, 1]), Reason.INVALID_FIELD, "inputs[0].shape", "[rows, 1]"),
        (changed("size", shape=[-1, 1]), Reason.INVALID_FIELD, "inputs[0].shape", "[-1, 1]"),
        (changed("size", shape=[0, 1], values=[]), Reason.INVALID_FIELD, "inputs[0].shape", "no rows"),
        (changed("age", shape=[3, 1]), Reason.INVALID_FIELD, "inputs[1].shape", "3 rows where others have 2"),
        (changed("size", shape=[6, 1]), Reason.TOO_LARGE, "", "EASYML_MAX_PREDICT_ROWS"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(
    pack: Any, tensors: list[Tensor], reason: Reason, field: str, says: str
) -> None:
    answer = refused(pack(tensors))
    assert answer[:2] == (reason, field)
    assert says in answer[2]


def test_typed_contents_are_as_many_as_the_shape_says_and_in_their_own_field() -> None:
    request = typed(FITTING)
    request.inputs[0].contents.fp64_contents.append(3.0)
    assert refused(request)[1:] == (
        "inputs[0].contents.fp64_contents",
        "Tensor 'size' has 3 values where its shape says 2.",
    )
    request = typed(FITTING)
    request.inputs[0].contents.int64_contents.append(3)
    assert refused(request)[1] == "inputs[0].contents.int64_contents"
    request = typed(changed("size", "FP64"))
    request.inputs[0].datatype = "FP16"
    assert refused(request)[1] == "inputs[0].contents"


@pytest.mark.parametrize(
    ("number", "content"),
    [
        (0, b"1234567"),
        (0, b"x" * 24),
        (2, b""),
        (2, b"\x04\0\0"),
        (2, b"\x04\0\0\0Rome"),
        (2, b"\x04\0\0\0Rome\x09\0\0\0Oslo"),
        (2, b"\x04\0\0\0Rome\xff\xff\xff\xffOslo"),
        (2, b"\x04\0\0\0Rome" * 3),
    ],
)
def test_raw_contents_of_another_length_are_refused(number: int, content: bytes) -> None:
    request = raw(FITTING)
    request.raw_input_contents[number] = content
    assert refused(request)[1] == f"raw_input_contents[{number}]"


def test_raw_contents_are_for_all_tensors_and_instead_of_others() -> None:
    request = raw(FITTING)
    request.raw_input_contents.append(b"")
    assert refused(request)[1] == "raw_input_contents"
    request = raw(FITTING)
    request.inputs[1].contents.int64_contents.extend([42, 43])
    assert refused(request)[1] == "inputs[1].contents"


def test_a_parameter_that_would_do_nothing_is_refused_by_name() -> None:
    request = typed(FITTING)
    request.inputs[0].parameters["content_type"].string_param = "np"
    assert read(request) == EXPECTED
    request.parameters["priority"].uint64_param = 1
    assert refused(request)[1] == "parameters['priority']"


def test_nan_is_no_value_in_a_column_of_numbers() -> None:
    assert np.isnan(read(raw(changed("size", values=[float("nan"), 1.0])))[0][0])


OUTPUTS = outputs_of(SIGNATURE)
ANSWERED = Answered(Answers(np.array(["high", "Łow"], object), np.array([[0.75, 0.25], [0.5, 0.5]])), None)


def test_predictions_are_named_as_the_target_and_probabilities_name_their_classes() -> None:
    response = oip.ModelInferResponse()
    write_outputs(response, ANSWERED, SIGNATURE, OUTPUTS, range(2), raw=False)
    level, probabilities = response.outputs
    assert (level.name, level.datatype, list(level.shape)) == ("level", "BYTES", [2, 1])
    assert list(level.contents.bytes_contents) == [b"high", "Łow".encode()]
    assert (probabilities.name, probabilities.datatype) == ("level_probabilities", "FP64")
    assert list(probabilities.shape) == [2, 2]
    assert list(probabilities.contents.fp64_contents) == [0.75, 0.25, 0.5, 0.5]
    assert probabilities.parameters["classes"].string_param == '["high", "low"]'
    assert not response.raw_output_contents


def test_raw_answers_hold_the_same_row_by_row() -> None:
    response = oip.ModelInferResponse()
    write_outputs(response, ANSWERED, SIGNATURE, OUTPUTS, [1, 0], raw=True)
    assert [output.name for output in response.outputs] == ["level_probabilities", "level"]
    assert np.frombuffer(response.raw_output_contents[0]).tolist() == [0.75, 0.25, 0.5, 0.5]
    assert response.raw_output_contents[1] == b"\x04\0\0\0high\x04\0\0\0" + "Łow".encode()


@pytest.mark.parametrize(
    ("storage_type", "values", "datatype"),
    [
        (StorageType.DOUBLE, np.array([1.5, 2.0], np.float32), "FP64"),
        (StorageType.INT64, np.array([1, 2]), "INT64"),
        (StorageType.BOOL, np.array([True, False]), "BOOL"),
    ],
)
def test_predictions_have_the_type_of_the_target(
    storage_type: StorageType, values: np.ndarray[Any, Any], datatype: str
) -> None:
    signature = Signature(SIGNATURE.inputs, "y", storage_type)
    outputs = outputs_of(signature)
    assert [(output.name, output.datatype) for output in outputs] == [("y", datatype)]
    for is_raw in (True, False):
        response = oip.ModelInferResponse()
        write_outputs(response, Answered(Answers(values, None), None), signature, outputs, [0], raw=is_raw)
        if is_raw:
            dtype = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}[datatype]
            assert np.frombuffer(response.raw_output_contents[0], dtype).tolist() == values.tolist()
        else:
            (field,) = response.outputs[0].contents.ListFields()
            assert list(field[1]) == values.tolist()


def test_outputs_are_chosen_by_name() -> None:
    request = typed(FITTING)
    assert list(wanted(request, OUTPUTS)) == [0, 1]
    request.outputs.add(name="level_probabilities")
    assert list(wanted(request, OUTPUTS)) == [1]
    request.outputs.add(name="margin")
    with pytest.raises(InvalidInput, match="'level', 'level_probabilities'") as caught:
        wanted(request, OUTPUTS)
    assert caught.value.violations[0].field == "outputs[1].name"
    del request.outputs[1]
    request.outputs[0].parameters["classification"].int64_param = 3
    with pytest.raises(InvalidInput, match="classification"):
        wanted(request, OUTPUTS)
