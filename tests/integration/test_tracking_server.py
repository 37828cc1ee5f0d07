"""MLflow on a tracking server: what comes to it, that nothing comes twice, and that only the record waits for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from easyml.v1 import model_service_pb2, project_service_pb2
from easyml_server.data_folder import StartError
from easyml_server.doctor import examine
from easyml_server.domain.errors import Unavailable
from easyml_server.recording import tracking_server
from easyml_server.settings import Settings
from easyml_server.tracking.messages import Point, RecordRequest
from easyml_server.tracking.process import start_tracker
from easyml_server.tracking.server import TrackingServer
from tests.builders import a_project_of, upload
from tests.integration.documents import NOT_SERVING, SERVING, followed, health_of, started
from tests.integration.tracked import (
    CREDENTIALS,
    IN_THE_URI,
    RECORD_SECONDS,
    Tracked,
    experiment_of,
    exported,
    predicted,
    predicted_by_a_script,
    recorded,
    tracking,
    writers,
)
from tests.mlflow import MlflowServer, gate
from tests.proxy import proxy
from tests.servers import Client, eventually, log_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def tracked(mlflow: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    """For all tests here; those that change the way to MLflow put it back."""
    with tracking(mlflow, tmp_path_factory.mktemp("tracked") / "data") as made:
        yield made


def trained(client: Client, name: str | None = None, **changes: str) -> tuple[str, str, str]:
    """A training that has ended; project, experiment, model version."""
    project_id = a_project_of(client, name)
    experiment_id = started(client, project_id, upload(client, project_id).id, **changes)
    return project_id, experiment_id, followed(client, experiment_id)


def test_an_outage_delays_the_record_and_nothing_else(tracked: Tracked) -> None:
    log = log_of(tracked.server.data)
    with tracked.client() as client:
        assert health_of(client, "tracking") == SERVING
        tracked.way.down()
        _, experiment_id, version_id = trained(client)
        eventually(lambda: health_of(client, "tracking") == NOT_SERVING)
        assert health_of(client, "") == SERVING
        said = eventually(lambda: tracked.document(experiment_id))
        assert said["run_id"] == ""
        assert f"{tracked.uri} does not answer" in said["problem"]
        assert "does not answer" in log.read_text()
        assert not experiment_of(client, experiment_id).mlflow_run_id
        assert exported(client, version_id) > 0
        _, without_model, deleted = trained(client)
        delete_version(client, deleted)
        tracked.way.up()
        run_id = recorded(client, experiment_id)
        assert "files" not in tracked.mlflow.asked(f"artifacts/list?run_id={recorded(client, without_model)}")
        eventually(lambda: health_of(client, "tracking") == SERVING)
    said = tracked.document(experiment_id)
    assert (said["run_id"], said["problem"], said["tracking_uri"]) == (run_id, None, tracked.uri)
    (run,) = tracked.mlflow.runs(experiment_id)
    assert (run["info"]["run_id"], run["info"]["status"]) == (run_id, "FINISHED")
    listed = tracked.mlflow.asked(f"artifacts/list?run_id={run_id}&path=model")["files"]
    assert "model/MLmodel" in {each["path"] for each in listed}
    assert not (tracked.server.data / "mlflow" / "mlflow.db").exists()


def test_a_refusal_is_told_in_words_and_tried_again_and_nobody_is_shown_the_password(tracked: Tracked) -> None:
    log = log_of(tracked.server.data)
    tracked.gate.credentials = "ann:another"
    with tracked.client() as client:
        _, experiment_id, _ = trained(client)
        eventually(lambda: "does not take the credentials (401)" in log.read_text(), RECORD_SECONDS)
        eventually(lambda: health_of(client, "tracking") == NOT_SERVING)
        tracked.gate.credentials = CREDENTIALS
        recorded(client, experiment_id)
    for text in (log.read_text(), json.dumps(tracked.document(experiment_id)), str(tracked.mlflow.runs(experiment_id))):
        assert "canary" not in text


def test_a_server_killed_in_the_middle_of_a_run_leaves_one_whole_run(tracked: Tracked) -> None:
    # Parameters and metrics are there by then, and no file is.
    tracked.gate.hold("mlflow-artifacts")
    with tracked.client() as client:
        _, experiment_id, _ = trained(client)
        assert tracked.gate.holding.wait(RECORD_SECONDS)
    (half,) = tracked.mlflow.runs(experiment_id)
    assert half["info"]["status"] == "RUNNING"
    tracked.server.kill()
    tracked.gate.release()
    tracked.server.start()
    with tracked.client() as client:
        run_id = recorded(client, experiment_id)
    (run,) = tracked.mlflow.runs(experiment_id)
    assert (run["info"]["run_id"], run["info"]["status"]) == (run_id, "FINISHED")
    assert [each["info"]["run_id"] for each in tracked.mlflow.runs(experiment_id, "DELETED_ONLY")] == [
        half["info"]["run_id"]
    ]


def test_a_model_is_there_what_it_is_here_and_a_plain_script_loads_it(tracked: Tracked) -> None:
    with tracked.client() as client:
        project_id, _, first = trained(client, "Größe: a/b", model_name="kind of: it")
        point(client, "production", first)
        eventually(lambda: tracked.aliases(project_id) == {"production": "1"}, RECORD_SECONDS)
        model = tracked.registered(project_id)
        assert model is not None
        name = model["name"]
        assert re.fullmatch(rf"Größe-a-b-{project_id[:8]}\.kind-of-it-[0-9a-f]{{8}}", name)
        assert predicted_by_a_script(tracked.mlflow.uri, f"models:/{name}@production") == predicted(client, first)

        # While MLflow is away a version is added and aliases change; one that MLflow keeps to itself stays here.
        tracked.way.down()
        second = followed(client, started(client, project_id, upload(client, project_id).id, model_name="kind of: it"))
        for alias, version_id in (("production", second), ("old", first), ("v1", first)):
            point(client, alias, version_id)
        describe(client, second, "the better one")
        tracked.way.up()
        eventually(lambda: tracked.aliases(project_id) == {"production": "2", "old": "1"}, RECORD_SECONDS)
        assert tracked.versions(project_id) == {first: "1", second: "2"}
        told = {each["version"]: each.get("description", "") for each in tracked.mlflow.versions(name)}
        assert told == {"1": "", "2": "the better one"}

        # Gone here is gone there; a version that somebody else put there is left alone.
        theirs = "s3://theirs/model"
        tracked.mlflow.asked("model-versions/create", {"name": name, "source": theirs})
        gone = model_service_pb2.DeleteModelAliasRequest(
            project_id=project_id, model_name="kind of: it", alias="production"
        )
        client.models.DeleteModelAlias(gone)
        eventually(lambda: tracked.aliases(project_id) == {"old": "1"}, RECORD_SECONDS)
        delete_version(client, first)
        eventually(lambda: tracked.versions(project_id) == {second: "2"}, RECORD_SECONDS)
        delete_project(client, project_id)
    eventually(lambda: not tracked.versions(project_id), RECORD_SECONDS)
    assert [each["source"] for each in tracked.mlflow.versions(name)] == [theirs]


def test_a_model_of_nobody_else_goes_with_its_project(tracked: Tracked) -> None:
    with tracked.client() as client:
        project_id, _, version_id = trained(client)
        eventually(lambda: tracked.versions(project_id) == {version_id: "1"}, RECORD_SECONDS)
        delete_project(client, project_id)
    eventually(lambda: tracked.registered(project_id) is None, RECORD_SECONDS)


def point(client: Client, alias: str, version_id: str) -> None:
    client.models.SetModelAlias(model_service_pb2.SetModelAliasRequest(alias=alias, model_version_id=version_id))


def describe(client: Client, version_id: str, description: str) -> None:
    request = model_service_pb2.UpdateModelVersionRequest(
        model_version_id=version_id, description=description, update_mask=FieldMask(paths=["description"])
    )
    client.models.UpdateModelVersion(request)


def delete_version(client: Client, version_id: str) -> None:
    client.models.DeleteModelVersion(
        model_service_pb2.DeleteModelVersionRequest(model_version_id=version_id, force=True)
    )


def delete_project(client: Client, project_id: str) -> None:
    client.projects.DeleteProject(project_service_pb2.DeleteProjectRequest(project_id=project_id, force=True))


def test_two_that_record_one_experiment_at_once_make_one_run(mlflow: MlflowServer, tmp_path: Path) -> None:
    tags = {"label.team@home/x": "blue"}
    points = [Point("m", 1.0, 0, 1000)]
    request = RecordRequest(
        1, "an-experiment", "together", "run", "FINISHED", 1000, 2000, {"a": "1"}, points, tags, None
    )
    with gate(mlflow) as between:
        to = TrackingServer.of("http://{}:{}".format(*between.address))
        between.hold("runs/create")
        with writers(2, dict(to.environment), str(tmp_path)) as both:
            for writer in both:
                writer.ask(request)
            # Each has seen that there is none.
            eventually(lambda: between.held == 2, RECORD_SECONDS)
            between.release()
            for writer in both:
                assert writer.answer().error == ""
            for writer in both:
                writer.ask(request)
            answers = [writer.answer() for writer in both]
    (run,) = mlflow.runs("an-experiment")
    assert run["info"]["status"] == "FINISHED"
    assert {"key": "label.team_home_x", "value": "blue"} in run["data"]["tags"]
    assert [answer.error or answer.result["run_id"] for answer in answers] == 2 * [run["info"]["run_id"]]


async def test_each_refusal_says_what_to_do(mlflow: MlflowServer, tmp_path: Path) -> None:
    with gate(mlflow) as between:
        host, port = between.address
        to = TrackingServer.of(f"http://{IN_THE_URI}@{host}:{port}/")
        between.credentials = CREDENTIALS
        async with start_tracker(tmp_path, tmp_path, to) as tracker:
            assert await tracker.look() == f"http://{host}:{port} answers, and experiments can be read."
            for status, words in (
                (401, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
                (403, "the right to write there"),
                (404, "refuses it (404)"),
                (500, "an error of its own (500)"),
                (503, "an error of its own (503)"),
            ):
                between.refusing = status
                with pytest.raises(Unavailable, match=re.escape(words)) as raised:
                    await tracker.look()
                assert raised.value.metadata == {"part": "mlflow"}


def test_doctor_says_that_it_does_not_answer(mlflow: MlflowServer, tmp_path: Path) -> None:
    with proxy(mlflow.host, mlflow.port) as way:
        way.down()
        settings = Settings(mlflow_tracking_uri=f"http://127.0.0.1:{way.port}", data_dir=tmp_path)
        (finding,) = [each for each in examine(settings) if each.what == "tracking"]
    assert not finding.ok
    assert "does not answer (ConnectionError); start the MLflow server" in finding.sentence


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host", "not of http or https"),
        ("http://", "has no host"),
        ("http://ann@host", "without a password"),
        ("http://ann:canary@host:port", "cannot be read"),
        ("http://ann:canary@host?x=1", "behind ? or #"),
    ],
)
def test_what_names_no_server_is_said_at_start_without_a_password(uri: str, words: str) -> None:
    with pytest.raises(StartError, match=r"EASYML_MLFLOW_TRACKING_URI|MLFLOW_TRACKING_USERNAME") as raised:
        tracking_server(Settings(mlflow_tracking_uri=uri))
    assert words in str(raised.value)
    assert "canary" not in str(raised.value)
