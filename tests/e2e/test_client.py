"""The Python client against a real server."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from easyml_client import AsyncEasyML, EasyML, Split, errors
from easyml_client.resources.events import FoldCompleted, IterationCompleted, TrainingFinished
from easyml_client.resources.predictions import Prediction, PredictionFailure
from easyml_client.resources.projects import Project
from tests.e2e.conftest import Server

pytestmark = pytest.mark.slow

ROW = {"sepal_length": 5.0, "sepal_width": 3.4, "petal_length": 1.5, "petal_width": 0.2}


@pytest.fixture
def client(server: Server) -> Iterator[EasyML]:
    with EasyML(server.address, server.key) as client:
        yield client


@pytest.fixture
def project(client: EasyML) -> Project:
    return client.projects.create(f"e2e-{uuid.uuid4()}")


# Refused.


def test_without_a_token_nothing_is_told(server: Server) -> None:
    with EasyML(server.address, "eml_wrong") as client, pytest.raises(errors.NotSignedIn):
        list(client.projects.list())


def test_a_name_that_is_taken_is_refused(client: EasyML, project: Project) -> None:
    with pytest.raises(errors.AlreadyExists) as caught:
        client.projects.create(project.name)
    assert (caught.value.reason, caught.value.metadata["name"]) == ("NAME_TAKEN", project.name)
    assert caught.value.call_id


def test_the_same_request_id_makes_one_project(client: EasyML) -> None:
    name, request_id = f"e2e-{uuid.uuid4()}", str(uuid.uuid4())
    one, other = (client.projects.create(name, request_id=request_id) for _ in range(2))
    assert one == other


def test_a_field_that_breaks_a_rule_is_named(client: EasyML) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        client.projects.create("x" * 256)
    assert list(caught.value.fields) == ["name"]


def test_a_change_of_what_has_changed_is_refused(client: EasyML, project: Project) -> None:
    client.projects.update(project, description="first")
    with pytest.raises(errors.Stale):
        client.projects.update(project, description="second", etag=project.etag)


def test_a_file_that_is_no_table_is_refused(client: EasyML, project: Project, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is none")
    with pytest.raises(errors.InvalidInput) as caught:
        client.datasets.upload(project, tmp_path / "broken.parquet")
    assert caught.value.reason == "UNREADABLE_FILE"


def test_a_setting_that_an_algorithm_does_not_have_is_named(client: EasyML, project: Project, iris: Path) -> None:
    dataset = client.datasets.upload(project, iris)
    with pytest.raises(errors.InvalidInput) as caught:
        client.trainings.validate(
            project, dataset=dataset, target="species", algorithm="random_forest", hyperparameters={"trees": 3}
        )
    assert caught.value.reason == "INVALID_HYPERPARAMETER"
    assert any("trees" in field for field in caught.value.fields)


# Done.


def test_a_dataset_comes_back_byte_by_byte(client: EasyML, project: Project, iris: Path, tmp_path: Path) -> None:
    told: list[int] = []
    dataset = client.datasets.upload(project, iris, name="flowers", progress=lambda done, _: told.append(done))
    assert dataset.row_count == 60
    assert [column.storage_type for column in dataset.columns] == ["double"] * 4 + ["string"]
    assert told[-1] == iris.stat().st_size
    assert client.datasets.download("flowers", tmp_path / "back.csv", project=project).read_bytes() == iris.read_bytes()
    assert dataset.current_version
    assert dataset.current_version.sha256 == hashlib.sha256(iris.read_bytes()).hexdigest()
    pd.testing.assert_frame_equal(client.datasets.to_frame(dataset), pd.read_csv(iris), check_dtype=False)
    assert client.datasets.preview(dataset, rows=2).rows[0]["species"] == "setosa"


def test_a_dataset_tells_what_its_columns_hold(client: EasyML, project: Project, iris: Path) -> None:
    dataset = client.datasets.upload(project, iris)
    assert dataset.statistics is None
    found = client.datasets.get(dataset).statistics
    assert found is not None
    assert [column.name for column in found.columns] == list(pd.read_csv(iris).columns)
    length, species = found.column("petal_length"), found.column("species")
    assert length is not None
    assert length.numbers is not None
    assert length.numbers.mean == pytest.approx(pd.read_csv(iris)["petal_length"].mean())
    assert species is not None
    assert species.numbers is None
    assert [(each.value, each.count) for each in species.frequent_values] == [
        ("setosa", 20), ("versicolor", 20), ("virginica", 20),
    ]  # fmt: skip
    assert client.datasets.get(dataset, view="basic").statistics is None
    (listed,) = client.datasets.list(project, view="full")
    assert listed.statistics == found
    assert found.column("no such column") is None


def test_an_upload_that_is_complete_returns_its_dataset_again(client: EasyML, project: Project, iris: Path) -> None:
    upload_id = str(uuid.uuid4())
    one, other = (client.datasets.upload(project, iris, upload_id=upload_id) for _ in range(2))
    assert one.id == other.id


def test_a_frame_goes_up_and_comes_back(client: EasyML, project: Project) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2026-01-01", "2026-05-04"], utc=True)})
    dataset = client.datasets.upload(project, frame, name="frame")
    back = client.datasets.to_frame(dataset)
    assert back["a"].tolist() == [1, 2]
    assert back["b"].isna().tolist() == [False, True]
    assert back["c"].tolist() == frame["c"].tolist()


def test_the_main_job(client: EasyML, project: Project, iris: Path, tmp_path: Path) -> None:
    dataset = client.datasets.upload(project, iris)
    training = client.trainings.start(
        project,
        dataset=dataset,
        target="species",
        algorithm="random_forest",
        hyperparameters={"n_estimators": 10},
        split=Split("stratified", test_size=0.25, seed=1),
        cross_validation=3,
        metric="f1_macro",
        seed=1,
    )
    events = list(training.watch())
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len([event for event in events if isinstance(event, FoldCompleted)]) == 3
    assert any(isinstance(event, IterationCompleted) for event in events)
    assert isinstance(events[-1], TrainingFinished)

    experiment = training.result()
    assert experiment.metric("f1_macro") == 1.0
    assert (experiment.train_rows, experiment.test_rows) == (45, 15)
    version = client.models.get(experiment.model_version_id or "")
    assert client.models.set_alias(version, "champion").aliases == ("champion",)
    assert client.models.get(f"{version.model_name}@champion", project=project) == client.models.get(version.id)
    assert version.results is not None
    assert version.results.classification is not None
    assert [each.f1 for each in version.results.classification.classes] == [1.0] * 3
    assert client.models.get(version, view="basic").results is None
    exported = client.models.export(version, tmp_path, format="skops")
    assert exported.stat().st_size == next(a.size_bytes for a in version.artifacts if a.format == "skops")

    one = client.predictions.predict(version, ROW)
    frame = client.predictions.predict(version, pd.DataFrame([ROW]))
    named = client.predictions.predict(f"{version.model_name}@champion", [ROW], project=project)
    assert one.values == frame.values == named.values == ["setosa"]
    assert sum(share[0] for share in one.probabilities.values()) == pytest.approx(1)
    with pytest.raises(errors.InvalidInput) as caught:
        client.predictions.predict(version, [{"sepal_length": 5.0}])
    assert caught.value.reason == "MISSING_COLUMN"
    answers = list(client.predictions.stream(version, [[ROW], [{"nothing": 1.0}], [ROW, ROW]]))
    assert [type(answer) for answer in answers] == [Prediction, PredictionFailure, Prediction]


def test_experiments_are_compared(client: EasyML, project: Project, iris: Path) -> None:
    dataset = client.datasets.upload(project, iris)
    started = [
        client.trainings.start(project, dataset=dataset, target="species", algorithm=name, seed=1)
        for name in ("decision_tree", "gaussian_nb")
    ]
    for training in started:
        training.result(timeout=120)
    comparison = client.experiments.compare([training.id for training in started])
    assert comparison.experiments[0].rank == 1
    assert {compared.experiment.id for compared in comparison.experiments} == {training.id for training in started}
    assert comparison.same_test_rows


def test_a_training_is_cancelled(client: EasyML, project: Project, iris: Path) -> None:
    dataset = client.datasets.upload(project, iris)
    training = client.trainings.start(
        project,
        dataset=dataset,
        target="species",
        algorithm="random_forest",
        hyperparameters={"n_estimators": 10_000},
        cross_validation=10,
    )
    for event in training.watch():
        if isinstance(event, IterationCompleted):
            training.cancel()
    with pytest.raises(errors.TrainingCancelled):
        training.result()


def test_a_watch_survives_a_server_that_is_killed(own_server: Server, iris: Path) -> None:
    with EasyML(own_server.address, own_server.key) as client:
        project = client.projects.create("survivor")
        dataset = client.datasets.upload(project, iris)
        training = client.trainings.start(
            project,
            dataset=dataset,
            target="species",
            algorithm="random_forest",
            hyperparameters={"n_estimators": 10_000},
            cross_validation=10,
        )
        seen = []
        for event in training.watch():
            seen.append(event.sequence)
            if len(seen) == 8:
                own_server.stop(signal.SIGKILL)
                own_server.start()
                client.trainings.cancel(training.id)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 8


def test_a_session_is_renewed_and_ended(server: Server) -> None:
    email, password = f"{uuid.uuid4()}@example.org", str(uuid.uuid4())
    with EasyML(server.address) as client:
        client.auth.register(email, password)
        assert client.auth.whoami().user.email == email
        credentials = client._driver.credentials
        for _ in range(2):  # the second time with the token that the first one gave
            assert client._driver.run(credentials.renew(credentials.token))
        assert client.auth.whoami().api_key is None
        client.auth.logout()
        with pytest.raises(errors.NotSignedIn):
            client.auth.whoami()


def test_a_key_can_do_what_its_scope_says(server: Server, client: EasyML, project: Project) -> None:
    made = client.auth.create_api_key("reader", project=project, permission="viewer")
    with EasyML(server.address, made.secret) as reader:
        assert reader.projects.get(project).id == project.id
        with pytest.raises(errors.NotAllowed):
            reader.projects.update(project, name="mine")
        client.auth.revoke_api_key(made.api_key.id)
        with pytest.raises(errors.NotSignedIn):
            reader.projects.get(project)


def test_the_quick_start_of_the_readme_predicts(server: Server, iris: Path) -> None:
    text = (Path(__file__).parents[2] / "clients" / "python" / "README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=iris.parent,
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['setosa']"


async def test_the_asyncio_client_does_the_same(server: Server, iris: Path) -> None:
    async with AsyncEasyML(server.address, server.key) as client:
        project = await client.projects.create(f"e2e-{uuid.uuid4()}")
        dataset = await client.datasets.upload(project, iris)
        statistics = (await client.datasets.get(dataset)).statistics
        assert statistics is not None
        assert statistics.columns[-1].frequent_values[0].value == "setosa"
        training = await client.trainings.start(project, dataset=dataset, target="species", algorithm="gaussian_nb")
        sequences = [event.sequence async for event in training.watch()]
        assert sequences == list(range(1, len(sequences) + 1))
        experiment = await training.result()
        version = await client.models.get(experiment.model_version_id or "")
        assert version.results is not None
        assert version.results.classification is not None
        assert version.results.classification.classes[0].label == "setosa"
        prediction = await client.predictions.predict(version, [ROW])
        assert prediction.values == ["setosa"]
        assert [each.name async for each in client.datasets.list(project)] == ["iris"]
