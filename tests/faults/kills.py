"""Stories of a server that is killed at random moments, and of what must be true afterwards."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc

from easyml.v1 import dataset_service_pb2, experiment_pb2, training_service_pb2
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.servers import Client, ServerProcess, refusal_of

ROWS = 200_000
CHUNK = 256 * 1024
ENDED = (experiment_pb2.TRAINING_STATE_SUCCEEDED, experiment_pb2.TRAINING_STATE_FAILED)


@dataclass
class Kill:
    """One kill and what came of it."""

    story: str
    seconds: float
    outcome: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def killed_after(server: ServerProcess, seconds: float) -> Iterator[None]:
    """The server is killed this long after the block began; the block ends when it and its children are gone."""
    timer = threading.Timer(seconds, server.kill)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def seconds_of(action: Callable[[], Any]) -> float:
    """How long something takes when nobody disturbs it."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Uploads:
    """Uploads that are cut off and continued."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._content = a_table(ROWS)
        with self._client() as client:
            self._project_id = a_project_of(client)
            self.longest = seconds_of(lambda: upload(client, self._project_id, self._content))

    def killed_at(self, seconds: float) -> Kill:
        """Kill the server while it receives or converts; then the upload must be finished without loss."""
        kill = Kill("upload", seconds)
        header = a_header(self._project_id, self._content, upload_id=str(uuid4()))
        answered = None
        with killed_after(self._server, seconds), self._client() as client:
            try:
                answered = client.datasets.UploadDataset(an_upload(header, self._content, CHUNK)).dataset
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error
        self._server.start()
        with self._client() as client:
            header.offset = self._safe_bytes(client, header.upload_id)
            kill.details["received_bytes"] = header.offset
            dataset = client.datasets.UploadDataset(an_upload(header, self._content, CHUNK)).dataset
            kill.outcome = "was answered" if answered is not None else "was continued"
            assert answered is None or answered.id == dataset.id, "an answered upload was lost"
            assert dataset.current_version.sha256 == header.sha256
            assert self._downloaded(client, dataset.id) == self._content
        check_consistent(self._server.data)
        return kill

    def _safe_bytes(self, client: Client, upload_id: str) -> int:
        try:
            found = client.datasets.GetUpload(dataset_service_pb2.GetUploadRequest(upload_id=upload_id)).upload
        except grpc.RpcError as error:
            # Killed before the header was stored.
            assert refusal_of(error).reason == "NOT_FOUND", error
            return 0
        return int(found.received_bytes)

    def _downloaded(self, client: Client, dataset_id: str) -> bytes:
        parts = client.datasets.DownloadDataset(dataset_service_pb2.DownloadDatasetRequest(dataset_id=dataset_id))
        return b"".join(part.chunk for part in parts)

    def _client(self) -> Client:
        return Client(self._server.address, self._server.key)


class Trainings:
    """Trainings that are cut off and watched on."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        with self._client() as client:
            self._project_id = a_project_of(client)
            self._dataset_id = upload(client, self._project_id).id
            self.longest = seconds_of(lambda: self._watch(client, self._start(client), []))

    def killed_at(self, seconds: float) -> Kill:
        """Kill the server while it trains; then the training ends, and its watcher has missed nothing."""
        kill = Kill("training", seconds)
        seen: list[int] = []
        request_id, experiment_id = str(uuid4()), ""
        with killed_after(self._server, seconds), self._client() as client:
            try:
                experiment_id = self._start(client, request_id)
                self._watch(client, experiment_id, seen)
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error
        self._server.start()
        kill.details["seen"] = len(seen)
        with self._client() as client:
            again = self._start(client, request_id)
            assert experiment_id in ("", again), "one request started two trainings"
            self._watch(client, again, seen)
            found = client.trainings.GetExperiment(training_service_pb2.GetExperimentRequest(experiment_id=again))
            experiment = found.experiment
        assert seen == list(range(1, experiment.last_sequence + 1)), "events are missing, or came twice"
        assert experiment.state in ENDED
        assert experiment.state == experiment_pb2.TRAINING_STATE_SUCCEEDED or experiment.HasField("failure")
        kill.outcome = experiment_pb2.TrainingState.Name(experiment.state)
        check_consistent(self._server.data)
        return kill

    def _start(self, client: Client, request_id: str | None = None) -> str:
        request = a_training(self._project_id, self._dataset_id, algorithm="random_forest", request_id=request_id)
        request.spec.cross_validation.folds = 2
        return str(client.trainings.StartTraining(request).experiment.id)

    def _watch(self, client: Client, experiment_id: str, seen: list[int]) -> None:
        after = seen[-1] if seen else 0
        request = training_service_pb2.WatchTrainingRequest(experiment_id=experiment_id, after_sequence=after)
        for answer in client.trainings.WatchTraining(request):
            if answer.HasField("event"):
                seen.append(answer.event.sequence)

    def _client(self) -> Client:
        return Client(self._server.address, self._server.key)


def check_consistent(data: Path) -> None:
    """The database is whole, and there is a folder for each version and nothing else."""
    with sqlite3.connect(f"file:{data / 'easyml.db'}?mode=ro", uri=True) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = database.execute("SELECT id FROM dataset_versions UNION SELECT id FROM model_versions").fetchall()
        versions = {str(row[0]).replace("-", "") for row in rows}
    database.close()
    folders = {path.name.replace("-", "") for kind in ("datasets", "models") for path in data.glob(f"files/*/{kind}/*")}
    assert folders == versions
    assert [path.name for path in (data / "uploads").iterdir()] == []


def moments(longest: float, count: int, seed: int) -> list[float]:
    """Random moments of something that takes this long."""
    draw = random.Random(seed)
    return [draw.uniform(0, longest) for _ in range(count)]
