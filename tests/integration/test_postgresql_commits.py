"""The connection to PostgreSQL is lost at a COMMIT: done and not answered, or never there. Nothing is there twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from easyml.v1 import experiment_pb2, model_service_pb2, project_service_pb2
from easyml_client import EasyML
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.faults.consistency import check_shared
from tests.integration.replicas import Replicas, client_of, replicas, watch
from tests.postgresql import PostgresServer, postgresql
from tests.proxy import CommitProxy
from tests.servers import Client, refusal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOLD = ("UNAVAILABLE", "PART_UNAVAILABLE")


@dataclass
class Bench:
    """Two servers, one of them behind the proxy, and what calls need."""

    line: CommitProxy
    pair: Replicas
    client: Client
    other: Client
    project_id: str
    dataset_id: str

    def count(self, statement: str, *values: Any) -> int:
        return int(self.pair.execute(f"SELECT count(*) FROM {statement}", *values)[0]["count"])

    def lost(self, words: str, call: Callable[..., Any], request: Any, *, stored: bool) -> None:
        """The call whose COMMIT is lost is told to come again, and when."""
        self.line.cut_commit_of(words, stored=stored)
        refused = refusal(call, request)
        assert self.line.commit_cut.is_set()
        assert refused.short == TOLD
        assert refused.metadata == {"part": "database"}
        assert refused.retry_seconds


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Bench]:
    name = asyncio.run(postgres.create_database())
    url = postgres.database_url(name)
    with (
        closing(CommitProxy(address_of(url))) as line,
        replicas(tmp_path_factory.mktemp("servers"), url, number=1) as pair,
    ):
        behind = pair.start(DATABASE_URL=f"postgresql://{user_of(url)}127.0.0.1:{line.port}/{name}")
        with client_of(behind) as client, client_of(pair.servers[0]) as other:
            project_id = a_project_of(client)
            yield Bench(line, pair, client, other, project_id, upload(client, project_id).id)
            check_shared(pair.files, url)
    asyncio.run(postgres.drop_database(name))


def address_of(url: str) -> tuple[str, int] | Path:
    """Where a server listens: an address, or a folder of sockets."""
    found = urlsplit(url)
    if found.hostname:
        return found.hostname, found.port or 5432
    return Path(found.query.removeprefix("host=")) / ".s.PGSQL.5432"


def user_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[0] + "@"


@pytest.fixture(params=[True, False], ids=["stored", "not stored"])
def stored(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_training_is_started_once(bench: Bench, stored: bool) -> None:
    name = f"lost-{uuid4()}"
    request = a_training(bench.project_id, bench.dataset_id, name=name, request_id=str(uuid4()))
    bench.lost(name, bench.client.trainings.StartTraining, request, stored=stored)
    assert bench.count("ml_experiments WHERE name = $1", name) == int(stored)
    # At both servers, since a client may come to any.
    started = {each.trainings.StartTraining(request).experiment.id for each in (bench.client, bench.other)}
    assert len(started) == 1
    assert bench.count("ml_experiments WHERE name = $1", name) == 1
    events = list(watch(bench.client, started.pop()))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].WhichOneof("event") == "finished"


def test_a_project_is_made_once(bench: Bench, stored: bool) -> None:
    name = f"lost-{uuid4()}"
    request = project_service_pb2.CreateProjectRequest(name=name, request_id=str(uuid4()))
    bench.lost(name, bench.client.projects.CreateProject, request, stored=stored)
    made = {each.projects.CreateProject(request).project.id for each in (bench.client, bench.other)}
    assert len(made) == 1
    assert bench.count("projects WHERE name = $1", name) == 1


def test_a_change_that_knows_what_it_changes_is_made_once(bench: Bench, stored: bool) -> None:
    project_id = a_project_of(bench.client)
    get = project_service_pb2.GetProjectRequest(project_id=project_id)
    before = bench.client.projects.GetProject(get).project
    name = f"lost-{uuid4()}"
    request = project_service_pb2.UpdateProjectRequest(project_id=project_id, name=name, etag=before.etag)
    request.update_mask.paths.append("name")
    bench.lost(name, bench.client.projects.UpdateProject, request, stored=stored)
    if stored:
        # It is another project by now than the caller knows, who reads it again.
        assert refusal(bench.client.projects.UpdateProject, request).short == ("ABORTED", "STALE_ETAG")
    else:
        bench.client.projects.UpdateProject(request)
    after = bench.client.projects.GetProject(get).project
    assert after.name == name
    assert after.etag != before.etag


def test_an_alias_is_set_once(bench: Bench, stored: bool) -> None:
    started = bench.client.trainings.StartTraining(a_training(bench.project_id, bench.dataset_id)).experiment.id
    version_id = list(watch(bench.client, started))[-1].finished.model_version_id
    alias = f"lost-{uuid4()}"
    request = model_service_pb2.SetModelAliasRequest(model_version_id=version_id, alias=alias)
    bench.lost(alias, bench.client.models.SetModelAlias, request, stored=stored)
    assert alias in bench.client.models.SetModelAlias(request).model_version.aliases
    assert bench.count("alias_history WHERE alias = $1", alias) == 1


def test_a_dataset_is_stored_once(bench: Bench, stored: bool) -> None:
    column = f"lost{uuid4().hex}"
    content = a_table().replace(b"z", column.encode(), 1)
    header = a_header(bench.project_id, content, upload_id=str(uuid4()))

    def send(offset: int) -> Any:
        header.offset = offset
        return bench.client.datasets.UploadDataset(an_upload(header, content))

    # What the file says is in the last transaction only.
    if stored:
        # The server asks itself, since it must know whether the files are needed.
        bench.line.cut_commit_of(column, stored=True)
        made = send(0).dataset
        assert bench.line.commit_cut.is_set()
    else:
        bench.lost(column, send, 0, stored=False)
        made = send(len(content)).dataset
    assert send(len(content)).dataset.id == made.id
    assert bench.count("datasets WHERE name = $1", header.name) == 1
    training = a_training(bench.project_id, made.id)
    finished = list(watch(bench.client, bench.client.trainings.StartTraining(training).experiment.id))[-1].finished
    assert finished.state == experiment_pb2.TRAINING_STATE_SUCCEEDED


def test_a_client_asks_again_by_itself_and_gets_the_first_answer(bench: Bench, stored: bool) -> None:
    name = f"lost-{uuid4()}"
    with EasyML(bench.client.address, token=bench.client.token) as client:
        bench.line.cut_commit_of(name, stored=stored)
        made = client.projects.create(name)
        assert bench.line.commit_cut.is_set()
        assert client.projects.get(name).id == made.id
    assert bench.count("projects WHERE name = $1", name) == 1
