# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

from easyml.v1 import project_pb2
from easyml.v1 import project_service_pb2 as pb
from easyml.v1.project_service_pb2_grpc import ProjectServiceServicer
from easyml_client import EasyML, async_client, client, errors, methods
from easyml_client.plans import (
    algorithms,
    auth,
    datasets,
    deployment_configs,
    deployments,
    experiments,
    models,
    predictions,
    projects,
    trainings,
)
from easyml_client.plans.references import model_version_name
from tests.unit.client.support import an_id, client_of

NOUNS = (
    "Auth",
    "Projects",
    "Datasets",
    "Algorithms",
    "Trainings",
    "Experiments",
    "Models",
    "Deployments",
    "Predictions",
)


def names(noun: type) -> set[str]:
    return {name for name in vars(noun) if not name.startswith("_")}


@pytest.mark.parametrize("noun", NOUNS)
def test_both_clients_can_do_the_same_with_the_same_words(noun: str) -> None:
    blocking, asynchronous = getattr(client, noun), getattr(async_client, noun)
    assert names(blocking) == names(asynchronous)
    for name in names(blocking):
        one, other = getattr(blocking, name), getattr(asynchronous, name)
        assert list(inspect.signature(one).parameters) == list(inspect.signature(other).parameters)
        assert inspect.signature(one).parameters["self"]
        assert one.__doc__ == other.__doc__
        assert one.__doc__


def test_both_handles_can_do_the_same() -> None:
    assert names(client.Training) == names(async_client.AsyncTraining)
    assert names(client.Rollout) == names(async_client.AsyncRollout)
    assert names(client.EasyML) == names(async_client.AsyncEasyML)


def test_help_shows_the_parameters_of_the_operation() -> None:
    with EasyML("localhost:1") as easyml:
        assert list(inspect.signature(easyml.trainings.start).parameters)[:3] == ["project", "dataset", "algorithm"]


def test_every_rpc_can_be_reached() -> None:
    written = "".join(
        inspect.getsource(module)
        for module in (
            algorithms,
            auth,
            datasets,
            deployment_configs,
            deployments,
            experiments,
            models,
            predictions,
            projects,
            trainings,
        )
    )
    credentials = inspect.getsource(__import__("easyml_client.credentials", fromlist=["_"]))
    for request in methods._methods():
        name = request.rsplit(".", 1)[1]
        assert name in written or name in credentials or name == "HealthCheckRequest", name


# References.


class Projects(ProjectServiceServicer):
    def __init__(self, *projects: str) -> None:
        self.projects = projects
        self.pages: list[str] = []

    def ListProjects(self, request: pb.ListProjectsRequest, context: Any) -> pb.ListProjectsResponse:
        """One project a page."""
        self.pages.append(request.page_token)
        found = [project for project in self.projects if project.startswith(request.name_prefix)]
        at = int(request.page_token or 0)
        page = [project_pb2.Project(id=an_id(f"{name}{at}"), name=name) for name in found[at : at + 1]]
        more = str(at + 1) if at + 1 < len(found) else ""
        return pb.ListProjectsResponse(projects=page, next_page_token=more)

    def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
        return pb.GetProjectResponse(project=project_pb2.Project(id=request.project_id))


def test_a_project_is_found_by_its_whole_name_on_any_page() -> None:
    with client_of(Projects("iris-2", "iris-3", "iris")) as easyml:
        assert easyml.projects.get("iris").id == an_id("iris2")


def test_an_id_is_not_looked_up() -> None:
    servicer = Projects()
    with client_of(servicer) as easyml:
        assert easyml.projects.get(an_id("x")).id == an_id("x")
    assert servicer.pages == []


def test_a_name_that_nobody_has_is_not_found() -> None:
    with client_of(Projects("iris-2")) as easyml, pytest.raises(errors.NotFound, match="easyml projects list"):
        easyml.projects.get("iris")


def test_a_name_that_two_have_is_refused_with_their_ids() -> None:
    with client_of(Projects("iris", "iris")) as easyml, pytest.raises(errors.InvalidInput, match=an_id("iris1")):
        easyml.projects.get("iris")


@pytest.mark.parametrize("ask", ["get", "preview", "download"])
def test_a_datasets_name_needs_its_project(ask: str) -> None:
    with client_of() as easyml, pytest.raises(errors.InvalidInput, match="its project is needed"):
        getattr(easyml.datasets, ask)("titanic")


@pytest.mark.parametrize(
    ("text", "name", "version", "alias"),
    [
        ("churn", "churn", 0, ""),
        ("churn:3", "churn", 3, ""),
        ("churn@production", "churn", 0, "production"),
        ("a:b", "a:b", 0, ""),
        ("a:b:2", "a:b", 2, ""),
        ("a@b@c", "a@b", 0, "c"),
        ("churn:0", "churn:0", 0, ""),
        ("churn:²", "churn:²", 0, ""),
        ("@x", "@x", 0, ""),
        ("churn:99999999999", "churn:99999999999", 0, ""),
    ],
)
def test_a_version_is_named_by_number_or_alias(text: str, name: str, version: int, alias: str) -> None:
    found = model_version_name(text, an_id("project"))
    assert (found.model_name, found.version, found.alias) == (name, version, alias)


# Lists.


def test_a_list_asks_for_the_next_page_when_it_is_needed() -> None:
    servicer = Projects("a", "b", "c")
    with client_of(servicer) as easyml:
        found = easyml.projects.list()
        assert next(found).name == "a"
        assert servicer.pages == [""]
        assert [project.name for project in found] == ["b", "c"]
    assert servicer.pages == ["", "1", "2"]


# Requests.


def first_request(plan: Generator[Any, Any, Any]) -> Any:
    """What a plan wants sent first."""
    return next(plan).request


def test_a_training_is_asked_for_as_the_contract_has_it() -> None:
    request = first_request(
        trainings.start(
            an_id("project"),
            dataset=an_id("dataset"),
            target="species",
            algorithm="random_forest",
            hyperparameters={"n_estimators": 200},
            cross_validation=5,
            metric="f1_macro",
            seed=0,
            max_duration=90,
            split="stratified",
            test_size=0.3,
        )
    )
    spec = request.spec
    assert request.request_id
    assert (spec.target, spec.algorithm, spec.cross_validation.folds) == ("species", "random_forest", 5)
    assert (spec.split.WhichOneof("kind"), spec.split.test_size) == ("stratified", 0.3)
    assert not spec.HasField("test_size")
    assert (spec.random_seed, spec.max_duration.seconds, spec.HasField("random_seed")) == (0, 90, True)
    assert spec.hyperparameters["n_estimators"] == 200


def test_what_is_left_open_in_a_training_is_not_sent() -> None:
    spec = first_request(trainings.start(an_id("p"), dataset=an_id("d"), algorithm="ridge")).spec
    open_ = {"test_size", "cross_validation", "random_seed", "max_duration", "split", "split_experiment_id"}
    assert not {field.name for field, _ in spec.ListFields()} & open_


def test_a_check_of_a_training_starts_nothing() -> None:
    assert first_request(trainings.validate(an_id("p"), dataset=an_id("d"), algorithm="ridge")).validate_only


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"split": "magic"}, "'magic' is no split; choose one of random, stratified, group, time, column"),
        ({"split": "tiem"}, "did you mean 'time'"),
        ({"split": "random", "split_like": an_id("e")}, "not both"),
        ({"metric": "magic"}, "'magic' is no metric; choose one of accuracy"),
        ({"metric": "rmsee"}, "'rmsee' is no metric; did you mean 'rmse'"),
        ({"task": "clustering"}, "'clustering' is no task; choose one of"),
        ({"hyperparameters": {"a": object()}}, "a is a object"),
    ],
)
def test_a_training_that_cannot_be_meant_is_refused_before_it_is_sent(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.InvalidInput, match=says):
        next(trainings.start(an_id("p"), dataset=an_id("d"), algorithm="ridge", **wrong))


@pytest.mark.parametrize(
    ("build", "paths"),
    [
        (lambda: projects.update(an_id("p"), name="a"), ["name"]),
        (lambda: projects.update(an_id("p"), description="", labels={}), ["description", "labels"]),
        (lambda: datasets.update(an_id("d"), roles={"id": "identifier"}), ["columns"]),
        (lambda: models.update(an_id("m"), labels={"a": "b"}), ["labels"]),
        (lambda: projects.update_config(an_id("p"), visibility="internal"), ["visibility"]),
    ],
)
def test_an_update_names_what_it_changes(build: Callable[[], Generator[Any, Any, Any]], paths: list[str]) -> None:
    assert list(first_request(build()).update_mask.paths) == paths


def test_one_storage_setting_keeps_the_other() -> None:
    plan = projects.update_config(an_id("p"), max_bytes=5)
    assert isinstance(next(plan).request, pb.GetProjectConfigRequest)
    before = project_pb2.ProjectConfig(storage=project_pb2.StorageConfig(max_bytes=1, keep_original_files=False))
    sent = plan.send(pb.GetProjectConfigResponse(config=before)).request
    assert (sent.config.storage.max_bytes, sent.config.storage.keep_original_files) == (5, False)
    assert sent.config.storage.HasField("keep_original_files")


def test_an_async_list_is_an_async_iterator() -> None:
    easyml = async_client.AsyncEasyML("localhost:1")
    assert isinstance(easyml.projects.list(), AsyncIterator)
