"""A COMMIT that ends a training is lost: done and not answered, or never there. The training ends once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from easyml.v1 import dataset_pb2, experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_long_training, a_project_of, a_table, a_training, upload
from tests.faults.consistency import check_shared
from tests.integration.replicas import Replicas, client_of, replicas, watch
from tests.integration.test_postgresql_commits import address_of, user_of
from tests.postgresql import PostgresServer, postgresql
from tests.proxy import CommitProxy
from tests.servers import Client, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LAST_EVENT = '"type":"finished"'
"""Of all transactions only the one that ends a training says so."""
CUT_SECONDS = 60


@dataclass
class Bench:
    """Two servers behind one proxy: either may run a training."""

    line: CommitProxy
    pair: Replicas
    clients: tuple[Client, Client]
    project_id: str
    dataset: dataset_pb2.Dataset

    def start(self, request: pb.StartTrainingRequest) -> str:
        return str(self.clients[0].trainings.StartTraining(request).experiment.id)

    def get(self, experiment_id: str) -> experiment_pb2.Experiment:
        request = pb.GetExperimentRequest(experiment_id=experiment_id)
        found: experiment_pb2.Experiment = self.clients[1].trainings.GetExperiment(request).experiment
        return found

    def watched(self, experiment_id: str) -> list[list[Any]]:
        """What watchers at both servers see, to the end."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda client: list(watch(client, experiment_id)), self.clients))


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Bench]:
    name = asyncio.run(postgres.create_database())
    url = postgres.database_url(name)
    with closing(CommitProxy(address_of(url))) as line:
        behind = f"postgresql://{user_of(url)}127.0.0.1:{line.port}/{name}"
        folder = tmp_path_factory.mktemp("servers")
        with replicas(folder, behind) as pair:
            pair.url = url
            first, second = (client_of(server) for server in pair.servers)
            with first, second:
                project_id = a_project_of(first)
                yield Bench(line, pair, (first, second), project_id, upload(first, project_id))
                # Rows and files fit together, whoever ran what.
                check_shared(pair.files, url)
    asyncio.run(postgres.drop_database(name))


@pytest.fixture(params=[True, False], ids=["stored", "not stored"])
def stored(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def succeeds(bench: Bench) -> str:
    return bench.start(a_training(bench.project_id, bench.dataset.id))


def fails(bench: Bench) -> str:
    """One class has one member, which cannot be on both sides of the split."""
    dataset = upload(bench.clients[0], bench.project_id, a_table() + b"0.5,3,once\n")
    return bench.start(a_training(bench.project_id, dataset.id))


def is_cancelled(bench: Bench) -> str:
    identity = bench.start(a_long_training(bench.project_id, bench.dataset.id))
    eventually(lambda: bench.get(identity).state == experiment_pb2.TRAINING_STATE_RUNNING or None)
    bench.clients[0].trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=identity))
    return identity


@pytest.mark.parametrize(
    ("begin", "state"),
    [
        (succeeds, experiment_pb2.TRAINING_STATE_SUCCEEDED),
        (fails, experiment_pb2.TRAINING_STATE_FAILED),
        (is_cancelled, experiment_pb2.TRAINING_STATE_CANCELLED),
    ],
)
def test_a_training_ends_once(bench: Bench, stored: bool, begin: Callable[[Bench], str], state: int) -> None:
    bench.line.cut_commit_of(LAST_EVENT, stored=stored)
    identity = begin(bench)
    assert bench.line.commit_cut.wait(CUT_SECONDS)
    for events in bench.watched(identity):
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        kinds = [event.WhichOneof("event") for event in events]
        assert (kinds.count("finished"), kinds[-1]) == (1, "finished")
        assert events[-1].finished.state == state
    ended = bench.get(identity)
    assert ended.state == state
    versions = bench.pair.execute("SELECT id FROM model_versions WHERE experiment_id = $1", identity)
    assert [str(row["id"]) for row in versions] == [ended.model_version_id] * bool(ended.model_version_id)
    assert bool(ended.model_version_id) == (state == experiment_pb2.TRAINING_STATE_SUCCEEDED)
    assert runs_of(bench, identity) == 1


def runs_of(bench: Bench, experiment_id: str) -> int:
    """How many runs MLflow has, once the experiment says that it has one."""
    eventually(lambda: bench.get(experiment_id).mlflow_run_id or None, seconds=120)
    path = bench.pair.files / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as recorded:
        statement = "SELECT count(*) FROM tags WHERE key = 'easyml.experiment_id' AND value = ?"
        return int(recorded.execute(statement, [experiment_id]).fetchone()[0])
