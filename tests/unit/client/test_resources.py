from __future__ import annotations

import dataclasses
import datetime as dt
import typing
from typing import Any

import pytest

from easyml.v1 import (
    algorithm_pb2,
    dataset_pb2,
    experiment_pb2,
    model_pb2,
    prediction_service_pb2,
    project_pb2,
    training_event_pb2,
)
from easyml_client import errors
from easyml_client.resources import (
    algorithms,
    datasets,
    deployment_logs,
    deployment_metrics,
    deployments,
    dvc,
    events,
    experiments,
    models,
    predictions,
    projects,
    results,
    selection,
    users,
)
from easyml_client.resources.base import Resource, plain
from easyml_client.values import enum_number, enum_word, from_struct, to_struct

MODULES = (
    algorithms,
    datasets,
    deployment_logs,
    deployment_metrics,
    deployments,
    dvc,
    events,
    experiments,
    models,
    predictions,
    projects,
    results,
    selection,
    users,
)
RESOURCES = sorted(
    {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Resource) and "message_type" in vars(kind)
    },
    key=lambda kind: kind.__name__,
)
# Shown in another form by a property, or only in `proto`.
SHOWN_OTHERWISE = {
    "Preview": {"table"},
    "Prediction": {"predictions", "probabilities"},
    "TrainingSpec": {"split"},
}


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda kind: kind.__name__)
def test_a_resource_shows_all_fields_of_its_message(resource: type[Resource[Any]]) -> None:
    shown = {field.name for field in dataclasses.fields(resource)} | SHOWN_OTHERWISE.get(resource.__name__, set())
    assert shown == set(resource.message_type.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda kind: kind.__name__)
def test_an_empty_message_can_be_read(resource: type[Resource[Any]]) -> None:
    message = resource.message_type()
    assert resource.of(message).proto is message


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda kind: kind.__name__)
def test_what_may_be_missing_says_so(resource: type[Resource[Any]]) -> None:
    hints, read = typing.get_type_hints(resource), resource.of(resource.message_type())
    # A time that the server always sets is declared without None, to spare users the check.
    always = {name for name in hints if name.endswith("_time")} | {"metric", "partition", "state", "stage", "direction"}
    for field in dataclasses.fields(resource):
        value, hint = getattr(read, field.name), hints[field.name]
        if value is None and field.name not in always:
            assert type(None) in typing.get_args(hint) or hint is Any or field.name in _REQUIRED_HERE, field.name


_REQUIRED_HERE = {"user", "api_key", "experiment", "format", "model_version"}


def test_values_are_pythons() -> None:
    message = experiment_pb2.Experiment(
        id="e",
        state=experiment_pb2.TRAINING_STATE_SUCCEEDED,
        labels={"b": "2", "a": "1"},
        metrics=[experiment_pb2.MetricValue(metric=algorithm_pb2.METRIC_F1_MACRO, partition=3, value=0.5)],
        spec=experiment_pb2.TrainingSpec(test_size=0.3, random_seed=0),
    )
    message.spec.hyperparameters.update({"n_estimators": 100, "rate": 0.5, "deep": {"list": [1, None, True, "x"]}})
    message.spec.max_duration.seconds = 90
    message.start_time.seconds = 60
    experiment = experiments.Experiment.of(message)
    assert experiment.state == "succeeded"
    assert list(experiment.labels.items()) == [("a", "1"), ("b", "2")]
    assert experiment.metric("f1_macro") == 0.5
    assert experiment.metric("accuracy") is None
    assert experiment.spec
    assert experiment.spec.hyperparameters == {
        "n_estimators": 100,
        "rate": 0.5,
        "deep": {"list": [1, None, True, "x"]},
    }
    assert (experiment.spec.test_size, experiment.spec.random_seed, experiment.spec.target) == (0.3, 0, "")
    assert experiment.spec.max_duration == dt.timedelta(seconds=90)
    assert experiment.start_time == dt.datetime(1970, 1, 1, 0, 1, tzinfo=dt.UTC)
    assert (experiment.end_time, experiment.failure, experiment.model_version_id) == (None, None, None)


def test_json_has_numbers_and_rfc_3339_times() -> None:
    message = dataset_pb2.DatasetVersion(id="v", size_bytes=2**60, format=1)
    message.create_time.seconds = 60
    found = datasets.DatasetVersion.of(message).to_dict()
    assert (found["size_bytes"], found["format"], found["create_time"]) == (2**60, "csv", "1970-01-01T00:01:00Z")
    assert plain(dt.timedelta(seconds=90)) == 90


def test_a_resource_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        projects.Project.of(project_pb2.Project(name="a")).name = "b"  # type: ignore[misc]


def test_a_value_of_a_later_server_is_kept_as_its_number() -> None:
    assert enum_word(model_pb2.ArtifactFormat.DESCRIPTOR, 99) == "99"


def test_a_word_that_is_unknown_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(errors.InvalidInput, match="'magic' is no task; choose one of classification, regression"):
        enum_number("task", algorithm_pb2.Task, "magic")


def test_an_event_of_a_later_server_is_passed_over() -> None:
    assert events.event_of(training_event_pb2.TrainingEvent(sequence=3)) is None


def test_each_event_of_the_contract_has_a_class() -> None:
    kinds = {field.name for field in training_event_pb2.TrainingEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    for kind in kinds:
        message = training_event_pb2.TrainingEvent(sequence=7)
        getattr(message, kind).SetInParent()
        event = events.event_of(message)
        assert event is not None
        assert (event.sequence, event.event, event.to_dict()["event"]) == (7, kind, kind)


def test_a_confusion_matrix_has_rows() -> None:
    message = experiment_pb2.ConfusionMatrix(labels=["a", "b"], counts=[1, 2, 3, 4])
    assert experiments.ConfusionMatrix.of(message).rows == ((1, 2), (3, 4))


def test_a_prediction_reads_as_columns_and_as_a_frame() -> None:
    message = prediction_service_pb2.PredictResponse(prediction_id="p")
    message.predictions.strings.values.extend(["yes", "no"])
    for label, values in {"no": [0.1, 0.8], "yes": [0.9, 0.2]}.items():
        message.probabilities.add(label=label, values=values)
    prediction = predictions.Prediction.of(message)
    assert prediction.values == ["yes", "no"]
    assert prediction.to_frame().to_dict("list") == {
        "prediction": ["yes", "no"],
        "probability_no": [0.1, 0.8],
        "probability_yes": [0.9, 0.2],
    }


def test_settings_survive_the_struct() -> None:
    settings = {"a": None, "b": True, "c": 3, "d": 0.5, "e": "x", "f": [1, [2]], "g": {"h": (1, 2)}}
    assert from_struct(to_struct(settings)) == {**settings, "g": {"h": [1, 2]}}


def test_a_setting_of_no_json_type_is_named() -> None:
    with pytest.raises(errors.InvalidInput, match="depth is a set"):
        to_struct({"depth": {1}})
