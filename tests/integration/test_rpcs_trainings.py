"""TrainingService as callers see it: what can be trained, what will be, what came of it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from easyml.v1 import algorithm_pb2, dataset_pb2, experiment_pb2, model_service_pb2, project_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_long_training, a_project_of, a_training, upload
from tests.conftest import World
from tests.marks import answers, refuses
from tests.servers import Client, refusal

STATES = experiment_pb2.TrainingState
TASKS = algorithm_pb2.Task
METRIC = algorithm_pb2.Metric.Value


def get(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    request = pb.GetExperimentRequest(experiment_id=experiment_id)
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
    return found


def train(client: Client, request: pb.StartTrainingRequest) -> experiment_pb2.Experiment:
    """Start a training and wait for its end."""
    started = client.trainings.StartTraining(request).experiment
    list(client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=started.id)))
    return get(client, started.id)


@pytest.fixture(scope="module")
def dataset(owner: Client) -> dataset_pb2.Dataset:
    """A table in a project of its own, which tests only read."""
    return upload(owner, a_project_of(owner), name="table")


@pytest.fixture(scope="module")
def project_id(dataset: dataset_pb2.Dataset) -> str:
    return dataset.project_id


@answers("TrainingService/ListAlgorithms")
def test_algorithms_say_everything_that_can_be_set(owner: Client) -> None:
    found = owner.trainings.ListAlgorithms(pb.ListAlgorithmsRequest(page_size=1000)).algorithms
    names = [(algorithm.task, algorithm.name) for algorithm in found]
    assert len(set(names)) == len(names)
    of_task = {task: [name for each, name in names if each == task] for task in (1, 2)}
    assert (len(of_task[TASKS.TASK_CLASSIFICATION]), len(of_task[TASKS.TASK_REGRESSION])) == (15, 18)
    assert all(names == sorted(names) for names in of_task.values())
    for algorithm in found:
        assert algorithm.display_name
        assert algorithm.description.endswith(".")
        assert algorithm.implementation
        for parameter in algorithm.hyperparameters:
            assert parameter.type
            assert parameter.description.endswith(".")
            assert parameter.HasField("default_value")
    forest = next(algorithm for algorithm in found if algorithm.name == "random_forest")
    trees = next(parameter for parameter in forest.hyperparameters if parameter.name == "n_estimators")
    assert trees.type == algorithm_pb2.HYPERPARAMETER_TYPE_INTEGER
    assert (trees.default_value.number_value, trees.minimum) == (100, 1)


@refuses("TrainingService/ListAlgorithms")
def test_algorithms_come_in_pages_of_their_task(owner: Client) -> None:
    request, names = pb.ListAlgorithmsRequest(task=TASKS.TASK_REGRESSION, page_size=7), []
    while True:
        page = owner.trainings.ListAlgorithms(request)
        names += [algorithm.name for algorithm in page.algorithms]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (len(names), len(set(names))) == (18, 18)
    request.task = TASKS.TASK_CLASSIFICATION
    said = refusal(owner.trainings.ListAlgorithms, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"), ["page_token"])


@answers("TrainingService/StartTraining", "TrainingService/GetExperiment")
def test_a_training_fills_in_what_was_left_open_and_tells_how_it_went(
    owner: Client, dataset: dataset_pb2.Dataset, project_id: str
) -> None:
    answer = owner.trainings.StartTraining(a_training(project_id, dataset.id, labels={"a": "b"}))
    started, plan = answer.experiment, answer.plan
    assert started.state == STATES.TRAINING_STATE_QUEUED
    assert (started.name, started.dataset_name) == ("gaussian_nb on table", "table")
    assert started.spec == plan.spec
    assert (plan.spec.task, list(plan.spec.features)) == (TASKS.TASK_CLASSIFICATION, ["x", "z"])
    assert (plan.spec.split.WhichOneof("kind"), plan.spec.split.test_size) == ("stratified", 0.2)
    assert (plan.spec.objective.metric, plan.spec.model_name) == (METRIC("METRIC_ACCURACY"), "table-y")
    assert plan.spec.hyperparameters["var_smoothing"] == 1e-9
    assert (plan.rows, plan.estimated_memory_bytes > 0) == (60, True)
    list(owner.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=started.id)))
    ended = get(owner, started.id)
    assert ended.state == STATES.TRAINING_STATE_SUCCEEDED
    assert (ended.train_rows, ended.test_rows) == (48, 12)
    assert {(m.metric, m.partition) for m in ended.metrics} >= {
        (METRIC("METRIC_ACCURACY"), partition)
        for partition in (experiment_pb2.PARTITION_TRAIN, experiment_pb2.PARTITION_TEST)
    }
    for matrix in ended.confusion_matrices:
        rows = ended.train_rows if matrix.partition == experiment_pb2.PARTITION_TRAIN else ended.test_rows
        assert (list(matrix.labels), sum(matrix.counts)) == (["a", "b"], rows)
    assert started.create_time.ToDatetime() <= ended.start_time.ToDatetime() <= ended.end_time.ToDatetime()
    assert (dict(ended.labels), ended.HasField("failure")) == ({"a": "b"}, False)


def test_a_dry_run_says_what_would_happen_and_starts_nothing(owner: Client, dataset: dataset_pb2.Dataset) -> None:
    project_id = a_project_of(owner)
    own = upload(owner, project_id)
    dry = owner.trainings.StartTraining(a_training(project_id, own.id, validate_only=True))
    assert not dry.HasField("experiment")
    assert not owner.trainings.ListExperiments(pb.ListExperimentsRequest(project_id=project_id)).experiments
    train(owner, a_training(project_id, own.id))
    again = owner.trainings.StartTraining(a_training(project_id, own.id, validate_only=True)).plan
    assert again.spec == dry.plan.spec
    # Now there is an earlier one to go by.
    assert not dry.plan.HasField("estimated_duration")
    assert again.estimated_duration.ToTimedelta().total_seconds() > 0


def test_a_request_id_starts_one_training_and_serves_no_other_request(
    owner: Client, dataset: dataset_pb2.Dataset, project_id: str
) -> None:
    request = a_training(project_id, dataset.id, request_id=str(uuid4()))
    first, again = (owner.trainings.StartTraining(request) for _ in range(2))
    assert (again.experiment.id, again.plan.spec) == (first.experiment.id, first.plan.spec)
    request.spec.random_seed = 2
    said = refusal(owner.trainings.StartTraining, request)
    assert said.short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


REFUSED: dict[str, tuple[dict[str, Any], str, list[str], dict[str, str]]] = {
    "no such target": ({"target": "beak"}, "UNKNOWN_COLUMN", ["spec.target"], {"column": "beak"}),
    "no target": ({"target": ""}, "INVALID_FIELD", ["spec.target"], {}),
    "text as a number": ({"task": 2, "algorithm": "linear"}, "UNSUITABLE_TARGET", ["spec.target"], {"column": "y"}),
    "no such algorithm": ({"algorithm": "magic"}, "UNKNOWN_ALGORITHM", ["spec.algorithm"], {"algorithm": "magic"}),
    "one of the other task": (
        {"algorithm": "ridge"}, "UNKNOWN_ALGORITHM", ["spec.algorithm"], {"algorithm": "ridge"},
    ),
    "no such feature": ({"features": ["x", "q"]}, "UNKNOWN_COLUMN", ["spec.features[1]"], {"column": "q"}),
    "the target as a feature": ({"features": ["y"]}, "INVALID_FIELD", ["spec.features[0]"], {}),
    "a feature twice": ({"features": ["x", "x"]}, "INVALID_FIELD", ["spec.features[1]"], {}),
    "too small a test side": ({"test_size": 0.05}, "INVALID_FIELD", ["spec.test_size"], {}),
    "too large a test side": ({"test_size": 0.51}, "INVALID_FIELD", ["spec.test_size"], {}),
    "one fold": ({"cross_validation": {"folds": 1}}, "INVALID_FIELD", ["spec.cross_validation.folds"], {}),
    "no such group": (
        {"split": {"group": {"column": "q"}}}, "UNKNOWN_COLUMN", ["spec.split.group.column"], {"column": "q"},
    ),
    "no time column": ({"split": {"time": {}}}, "INVALID_FIELD", ["spec.split.time.column"], {}),
    "a metric of the other task": (
        {"objective": {"metric": METRIC("METRIC_RMSE")}}, "INVALID_FIELD", ["spec.objective.metric"], {},
    ),
    "the wrong direction": ({"objective": {"direction": 2}}, "INVALID_FIELD", ["spec.objective.direction"], {}),
    "text as a weight": (
        {"objective": {"weight_column": "y"}}, "WRONG_COLUMN_TYPE", ["spec.objective.weight_column"],
        {"column": "y", "expected": "double"},
    ),
    "weights twice": (
        {"objective": {"class_weights": {"a": 2.0}, "balance_classes": True}}, "INVALID_FIELD",
        ["spec.objective.class_weights"], {},
    ),
    "a weight of nothing": (
        {"objective": {"class_weights": {"a": 0.0}}}, "INVALID_FIELD", ['spec.objective.class_weights["a"]'], {},
    ),
    "no time at all": ({"max_duration": {"seconds": 0}}, "INVALID_FIELD", ["spec.max_duration"], {}),
}  # fmt: skip


@refuses("TrainingService/StartTraining")
@pytest.mark.parametrize("name", REFUSED)
def test_a_training_that_cannot_be_is_refused_at_its_field(
    owner: Client, dataset: dataset_pb2.Dataset, project_id: str, name: str
) -> None:
    changes, reason, fields, metadata = REFUSED[name]
    request = a_training(project_id, dataset.id, **changes)
    for request.validate_only in (True, False):
        said = refusal(owner.trainings.StartTraining, request)
        assert (said.short, said.fields) == (("INVALID_ARGUMENT", reason), fields)
        assert said.metadata == metadata
        assert said.message.endswith(".")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"depth": 3}, "depth"),
        ({"n_estimators": 0}, "n_estimators"),
        ({"n_estimators": 1.5}, "n_estimators"),
        ({"n_estimators": "many"}, "n_estimators"),
        ({"n_estimators": True}, "n_estimators"),
        ({"n_estimators": float("nan")}, "n_estimators"),
        ({"n_estimators": None}, "n_estimators"),
        ({"n_estimators": [1]}, "n_estimators"),
        ({"criterion": "beauty"}, "criterion"),
    ],
)
def test_a_setting_beyond_its_bounds_is_named(
    owner: Client, dataset: dataset_pb2.Dataset, project_id: str, values: dict[str, Any], field: str
) -> None:
    request = a_training(project_id, dataset.id, algorithm="random_forest")
    request.spec.hyperparameters.update(values)
    said = refusal(owner.trainings.StartTraining, request)
    assert said.short == ("INVALID_ARGUMENT", "INVALID_HYPERPARAMETER")
    assert said.fields == [f"spec.hyperparameters.{field}"]
    assert field in said.message


@refuses("TrainingService/CancelTraining", "TrainingService/GetExperiment")
def test_an_experiment_that_is_gone_is_not_found(owner: Client, dataset: dataset_pb2.Dataset, project_id: str) -> None:
    experiment_id = train(owner, a_training(project_id, dataset.id)).id
    owner.trainings.DeleteExperiment(pb.DeleteExperimentRequest(experiment_id=experiment_id))
    for call, request in (
        (owner.trainings.GetExperiment, pb.GetExperimentRequest(experiment_id=experiment_id)),
        (owner.trainings.CancelTraining, pb.CancelTrainingRequest(experiment_id=experiment_id)),
        (owner.trainings.WatchTraining, pb.WatchTrainingRequest(experiment_id=experiment_id)),
    ):
        said = refusal(call, request)
        assert (said.short, said.details["ResourceInfo"].resource_name) == (("NOT_FOUND", "NOT_FOUND"), experiment_id)


@pytest.fixture(scope="module")
def three(owner: Client) -> list[experiment_pb2.Experiment]:
    """Ended experiments of a project of their own: a forest and two others on equal splits."""
    project_id = a_project_of(owner)
    own = upload(owner, project_id)
    requests = [a_training(project_id, own.id, algorithm=name) for name in ("decision_tree", "gaussian_nb")]
    requests.append(a_training(project_id, own.id, labels={"kind": "odd"}, random_seed=2))
    requests[0].spec.hyperparameters.update({"max_depth": 1})
    return [train(owner, request) for request in requests]


@answers("TrainingService/ListExperiments")
def test_experiments_are_listed_by_state_algorithm_label_and_dataset(
    owner: Client, three: list[experiment_pb2.Experiment]
) -> None:
    tree, bayes, odd = (experiment.id for experiment in three)

    def listed(**filters: Any) -> list[str]:
        request, ids = pb.ListExperimentsRequest(project_id=three[0].project_id, page_size=2, **filters), []
        while True:
            page = owner.trainings.ListExperiments(request)
            ids += [experiment.id for experiment in page.experiments]
            if not page.next_page_token:
                return ids
            request.page_token = page.next_page_token

    assert listed() == [odd, bayes, tree]
    assert listed(order_by=pb.EXPERIMENT_ORDER_CREATE_TIME_ASC) == [tree, bayes, odd]
    assert listed(algorithm="gaussian_nb") == [odd, bayes]
    assert listed(labels={"kind": "odd"}) == [odd]
    assert listed(states=[STATES.TRAINING_STATE_FAILED]) == []
    assert listed(states=[STATES.TRAINING_STATE_FAILED, STATES.TRAINING_STATE_SUCCEEDED]) == [odd, bayes, tree]
    assert listed(dataset_id=three[0].spec.dataset_id) == [odd, bayes, tree]
    assert listed(dataset_id=str(uuid4())) == []
    basic, full = (
        owner.trainings.ListExperiments(pb.ListExperimentsRequest(project_id=three[0].project_id, view=view))
        for view in (project_pb2.RESOURCE_VIEW_BASIC, project_pb2.RESOURCE_VIEW_FULL)
    )
    for found, ended in zip(full.experiments, three[::-1], strict=True):
        assert (found.id, list(found.metrics), found.spec) == (ended.id, list(ended.metrics), ended.spec)
    assert not basic.experiments[0].metrics
    assert not basic.experiments[0].HasField("spec")


@refuses("TrainingService/ListExperiments")
def test_a_state_that_is_none_is_named(owner: Client, project_id: str) -> None:
    request = pb.ListExperimentsRequest(project_id=project_id, states=[99])  # type: ignore[list-item]  # on purpose
    said = refusal(owner.trainings.ListExperiments, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["states[0]"])


@answers("TrainingService/CompareExperiments")
def test_experiments_are_ranked_by_what_was_measured(owner: Client, three: list[experiment_pb2.Experiment]) -> None:
    ids = [experiment.id for experiment in three]
    found = owner.trainings.CompareExperiments(pb.CompareExperimentsRequest(experiment_ids=ids))
    assert (found.metric, found.partition) == (METRIC("METRIC_ACCURACY"), experiment_pb2.PARTITION_TEST)
    assert found.direction == algorithm_pb2.DIRECTION_MAXIMIZE
    assert {row.experiment.id for row in found.experiments} == set(ids)
    values = [row.value for row in found.experiments]
    assert values == sorted(values, reverse=True)
    assert [row.rank for row in found.experiments] == [values.index(value) + 1 for value in values]
    for row in found.experiments:
        measured = next(
            m.value for m in get(owner, row.experiment.id).metrics
            if (m.metric, m.partition) == (found.metric, found.partition)
        )  # fmt: skip
        assert row.value == measured
        assert row.duration.ToTimedelta().total_seconds() > 0
    # None named a split, so all were tested on the same rows, whatever their seeds.
    assert found.same_test_rows
    assert set(found.differing_hyperparameters) >= {"max_depth", "var_smoothing"}
    request = pb.CompareExperimentsRequest(experiment_ids=ids[:2], metric=METRIC("METRIC_LOG_LOSS"))
    found = owner.trainings.CompareExperiments(request)
    assert (found.same_test_rows, found.direction) == (True, algorithm_pb2.DIRECTION_MINIMIZE)
    values = [row.value for row in found.experiments]
    assert values == sorted(values)


def test_who_has_no_value_comes_last_without_a_rank(owner: Client, three: list[experiment_pb2.Experiment]) -> None:
    request = pb.CompareExperimentsRequest(
        experiment_ids=[each.id for each in three], partition=experiment_pb2.PARTITION_VALIDATION
    )
    found = owner.trainings.CompareExperiments(request).experiments
    assert [(row.rank, row.HasField("value")) for row in found] == [(0, False)] * 3


@refuses("TrainingService/CompareExperiments")
def test_what_does_not_compare_is_refused(
    owner: Client, world: World, three: list[experiment_pb2.Experiment], project_id: str
) -> None:
    one, other, _ = (experiment.id for experiment in three)
    for ids, metric, field in (
        ([one], 0, "experiment_ids"),
        ([one, one], 0, "experiment_ids"),
        ([one, world.experiment_id], 0, "experiment_ids"),
        ([one, other], METRIC("METRIC_RMSE"), "metric"),
    ):
        request = pb.CompareExperimentsRequest(experiment_ids=ids, metric=metric)  # type: ignore[arg-type]  # an enum's number
        said = refusal(owner.trainings.CompareExperiments, request)
        assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), [field])


@answers("TrainingService/DeleteExperiment")
@refuses("TrainingService/DeleteExperiment")
def test_an_ended_experiment_goes_and_its_model_version_stays(
    owner: Client, dataset: dataset_pb2.Dataset, project_id: str
) -> None:
    started = owner.trainings.StartTraining(a_long_training(project_id, dataset.id)).experiment
    request = pb.DeleteExperimentRequest(experiment_id=started.id)
    said = refusal(owner.trainings.DeleteExperiment, request)
    assert said.short == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert said.metadata["state"] in ("queued", "running")
    owner.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=started.id))
    list(owner.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=started.id)))
    assert owner.trainings.DeleteExperiment(request).deleted == project_pb2.DeletedResources(experiments=1)
    ended = train(owner, a_training(project_id, dataset.id))
    request.experiment_id = ended.id
    for request.validate_only in (True, False):
        request.etag = "another"
        assert refusal(owner.trainings.DeleteExperiment, request).short == ("ABORTED", "STALE_ETAG")
        request.etag = get(owner, ended.id).etag
        assert owner.trainings.DeleteExperiment(request).deleted == project_pb2.DeletedResources(experiments=1)
    named = model_service_pb2.GetModelVersionRequest(model_version_id=ended.model_version_id)
    assert owner.models.GetModelVersion(named).model_version.experiment_id == ""
