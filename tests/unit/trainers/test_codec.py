"""Messages between server and workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easyml_server.domain.datasets import ColumnValues, Preview, StorageType
from easyml_server.domain.errors import InvalidInput, LimitReached, Reason
from easyml_server.domain.events import (
    FoldCompleted,
    IterationCompleted,
    LogLevel,
    LogLine,
    ResourceUsage,
    StageStarted,
)
from easyml_server.domain.experiments import (
    Failure,
    FailureKind,
    FailureReason,
    Metric,
    MetricValue,
    Partition,
    TrainingStage,
)
from easyml_server.domain.training import SplitMade, TrainingFailed
from easyml_server.trainers import codec
from tests.integration.jobs import a_job
from tests.integration.worker_entries import a_success

MESSAGES = [
    StageStarted(TrainingStage.LOADING),
    FoldCompleted(1, 5, (MetricValue(Metric.RMSE, Partition.VALIDATION, 0.1, 0.2),)),
    IterationCompleted(3, 10, {"loss": 0.5}, fold=2),
    LogLine(LogLevel.INFO, 'ü\n"'),
    ResourceUsage(1 << 40, 1.5),
    SplitMade(8, 2, "ab"),
    TrainingFailed(Failure(FailureKind.USER, FailureReason.TIME_LIMIT, "late", TrainingStage.FITTING, -9)),
    a_success(),
    codec.Crashed("KeyError", ("a.py:1 f",)),
]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_metrics_are_numbers(value: float) -> None:
    fold = FoldCompleted(1, 1, (MetricValue(Metric.RMSE, Partition.VALIDATION, value),))
    with pytest.raises(ValueError, match="JSON"):
        codec.encode_training(fold)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "null", '"x"'])
def test_metrics_that_are_no_numbers_are_not_taken_either(number: str) -> None:
    message = codec.encode_training(FoldCompleted(1, 1, (MetricValue(Metric.RMSE, Partition.TEST, 0.25),)))
    with pytest.raises(ValueError):
        codec.decode_training(message.replace(b"0.25", number.encode()))


@pytest.mark.parametrize("message", [b"", b"{}", b"[]", b'{"type":"nonsense"}', b'{"type":"stage_started"}', b"\xff"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        codec.decode_training(message)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_arrive_as_they_were(message: codec.TrainingMessage) -> None:
    assert codec.decode_training(codec.encode_training(message)) == message


def test_a_job_arrives_as_it_was(tmp_path: Path) -> None:
    job = a_job(tmp_path, hyperparameters={"C": 1.5, "hidden_layer_sizes": [1, 2], "penalty": None, "fit": True})
    assert codec.decode_job(codec.encode_job(job)) == job


def test_errors_of_the_domain_cross_with_reason_and_metadata() -> None:
    error = InvalidInput.at("columns", "no", Reason.UNKNOWN_COLUMN, {"column": "a"})
    again = codec.decode_failure(codec.encode_failure(error))
    assert isinstance(again, InvalidInput)
    assert (again.message, again.reason, again.metadata) == ("no", Reason.UNKNOWN_COLUMN, {"column": "a"})
    assert again.violations == error.violations
    full = codec.decode_failure(codec.encode_failure(LimitReached("full", Reason.DISK_FULL)))
    assert isinstance(full, LimitReached)


def test_an_error_of_no_known_kind_is_bad_input() -> None:
    message = json.loads(codec.encode_failure(InvalidInput("no")))
    again = codec.decode_failure(json.dumps(message | {"error": "EventThinner"}).encode())
    assert type(again) is InvalidInput


def a_preview(**values: Any) -> Preview:
    return Preview(tuple(ColumnValues("a", StorageType(name), cells, (0,)) for name, cells in values.items()), True)


def test_previews_arrive_as_they_were() -> None:
    preview = a_preview(int64=[1], double=[float("inf")], string=["x"], bool=[True], timestamp=[1])
    assert codec.decode_preview(codec.encode_preview(preview)) == preview


@pytest.mark.parametrize(("type", "cell"), [("int64", 1.5), ("string", 1), ("double", "x"), ("bool", None)])
def test_previews_of_other_values_are_refused(type: str, cell: Any) -> None:
    with pytest.raises(ValueError):
        codec.decode_preview(codec.encode_preview(a_preview(**{type: [cell]})))
