"""Stories of a server that is killed, and of what must be true afterwards."""

from __future__ import annotations

import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

import grpc

from easyml.v1 import dataset_pb2, dataset_service_pb2, dvc_pb2, experiment_pb2, training_service_pb2
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.faults.consistency import check_consistent, check_no_process
from tests.faults.plan import FaultPlan, until
from tests.servers import Client, ServerProcess, refusal_of

ENDED = (experiment_pb2.TRAINING_STATE_SUCCEEDED, experiment_pb2.TRAINING_STATE_FAILED)
CUT_OFF = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass
class Kill:
    """One kill and what came of it."""

    story: str
    stage: str = ""
    outcome: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """When to kill: so long after a stage began."""

    stage: str
    seconds: float


class Story(ABC):
    """Something that is cut off by the death of its server, and must come to its end all the same."""

    name: ClassVar[str]
    stages: ClassVar[Mapping[str, str]]
    """The stages in order, each with the point that begins it."""
    last: ClassVar[str] = ""
    """The point that ends the last stage, where there is one."""

    def __init__(self, server: ServerProcess, plan: FaultPlan) -> None:
        self.server = server
        self.plan = plan
        with self.client() as client:
            self.project_id = a_project_of(client)

    def client(self) -> Client:
        return Client(self.server.address, self.server.key)

    @abstractmethod
    def cut_off_by(self, striking: AbstractContextManager[None]) -> Kill:
        """The story with a death in it, and what comes after that."""

    def killed_by(self, point: str) -> Kill:
        """The server kills itself at a named point."""
        return self.cut_off_by(killed_by_itself(self.server, self.plan, point))

    def struck(self) -> str:
        """The stage in which the death came, by the points that were passed before it."""
        passed = set(self.plan.points)
        begun = [stage for stage, point in self.stages.items() if point in passed]
        if self.last in passed:
            return "after its end"
        return begun[-1] if begun else "before its beginning"


class TimedStory(Story):
    """One whose stages take long enough to be cut off at any moment."""

    @abstractmethod
    def undisturbed(self) -> None:
        """The story without a fault."""

    def moments(self, count: int, seed: int) -> Sequence[Moment]:
        """Random moments, as many in each stage, whatever share of the time a stage has."""
        # Twice: the first time includes what is done once in the life of a server.
        for _ in range(2):
            self.plan.arm()
            self.undisturbed()
            self.plan.wait_for(self.last)
        began: dict[str, float] = {}
        for seconds, point in self.plan.times:
            began.setdefault(point, seconds)
        borders = [*(began[point] for point in self.stages.values()), began[self.last]]
        longest = {stage: borders[index + 1] - borders[index] for index, stage in enumerate(self.stages)}
        draw = random.Random(seed)
        chosen = [stage for _ in range(count) for stage in longest][:count]
        draw.shuffle(chosen)
        return [Moment(stage, draw.uniform(0, longest[stage])) for stage in chosen]

    def killed_at(self, moment: Moment) -> Kill:
        """The server is killed from outside at a moment."""
        self.plan.arm()
        kill = self.cut_off_by(killed_after(self.server, self.plan, self.stages[moment.stage], moment.seconds))
        kill.details["aimed_at"] = f"{moment.stage} + {moment.seconds:.3f} s"
        return kill


@contextmanager
def killed_after(server: ServerProcess, plan: FaultPlan, point: str, seconds: float) -> Iterator[None]:
    """The server is killed this long after it passed a point; the block ends when it and its children are gone."""

    def kill() -> None:
        plan.wait_for(point)
        time.sleep(seconds)
        # At once: to look for its children first takes longer than some stages do.
        server.running.send_signal(signal.SIGKILL)
        server.ended()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join()
    assert server.process is None, "the server was not killed"
    check_no_process(server.data)


@contextmanager
def killed_by_itself(server: ServerProcess, plan: FaultPlan, fault: str) -> Iterator[None]:
    """The server kills itself in this block, which ends when it and its children are gone."""
    plan.arm(fault)
    yield
    code = server.ended()
    assert code == -9, f"the server was not killed at {fault}: {code}"
    check_no_process(server.data)
    plan.path.write_text("")


class Uploads(TimedStory):
    """Uploads that are cut off and continued."""

    name = "upload"
    stages: ClassVar[Mapping[str, str]] = {
        "receiving": "upload.opened",
        "converting": "upload.received",
        "publishing": "upload.converted",
    }
    last = "upload.committed"
    # So large that a part is safe before the rest has come; in chunks so small that receiving takes its time.
    ROWS: ClassVar[int] = 900_000
    CHUNK: ClassVar[int] = 16 * 1024

    def __init__(self, server: ServerProcess, plan: FaultPlan) -> None:
        super().__init__(server, plan)
        self.content = a_table(self.ROWS)

    def undisturbed(self) -> None:
        with self.client() as client:
            header = a_header(self.project_id, self.content)
            client.datasets.UploadDataset(an_upload(header, self.content, self.CHUNK))

    def cut_off_by(self, striking: AbstractContextManager[None]) -> Kill:
        """Whoever sends does not know what came; they ask, and go on from there."""
        header = a_header(self.project_id, self.content, upload_id=str(uuid4()))
        answered = None
        with striking, self.client() as client:
            try:
                answered = client.datasets.UploadDataset(an_upload(header, self.content, self.CHUNK)).dataset
            except grpc.RpcError as error:
                assert error.code() in CUT_OFF, error
        kill = Kill(self.name, self.struck())
        self.server.start()
        with self.client() as client:
            header.offset = self._safe_bytes(client, header.upload_id)
            kill.details["received_bytes"] = header.offset
            dataset = client.datasets.UploadDataset(an_upload(header, self.content, self.CHUNK)).dataset
            kill.outcome = "was answered" if answered is not None else "was continued"
            assert answered is None or answered.id == dataset.id, "an answered upload was lost"
            self._check(client, header, dataset)
        check_consistent(self.server.data)
        return kill

    def _check(self, client: Client, header: dataset_service_pb2.UploadHeader, dataset: dataset_pb2.Dataset) -> None:
        assert dataset.current_version.sha256 == header.sha256
        parts = client.datasets.DownloadDataset(dataset_service_pb2.DownloadDatasetRequest(dataset_id=dataset.id))
        assert b"".join(part.chunk for part in parts) == self.content
        again = client.datasets.UploadDataset(an_upload(header, self.content, self.CHUNK)).dataset
        assert again.id == dataset.id, "an upload became two datasets"

    def _safe_bytes(self, client: Client, upload_id: str) -> int:
        try:
            found = client.datasets.GetUpload(dataset_service_pb2.GetUploadRequest(upload_id=upload_id)).upload
        except grpc.RpcError as error:
            # Killed before the header was stored.
            assert refusal_of(error).reason == "NOT_FOUND", error
            return 0
        return int(found.received_bytes)


class Trainings(TimedStory):
    """Trainings that are cut off and watched on."""

    name = "training"
    stages: ClassVar[Mapping[str, str]] = {
        "training": "training.claimed",
        "writing the model": "model.write",
        "publishing": "training.trained",
        "recording": "training.committed",
    }
    last = "outbox.recorded"

    def __init__(self, server: ServerProcess, plan: FaultPlan) -> None:
        super().__init__(server, plan)
        with self.client() as client:
            self.dataset_id = upload(client, self.project_id).id

    def undisturbed(self) -> None:
        with self.client() as client:
            self._watch(client, self._start(client), [])

    def cut_off_by(self, striking: AbstractContextManager[None]) -> Kill:
        """Whoever watches comes back with the last sequence they saw."""
        seen: list[int] = []
        request_id, experiment_id = str(uuid4()), ""
        with striking, self.client() as client:
            try:
                experiment_id = self._start(client, request_id)
                self._watch(client, experiment_id, seen)
            except grpc.RpcError as error:
                assert error.code() in CUT_OFF, error
        kill = Kill(self.name, self.struck(), details={"seen": len(seen)})
        self.server.start()
        with self.client() as client:
            again = self._start(client, request_id)
            assert experiment_id in ("", again), "one request started two trainings"
            self._watch(client, again, seen)
            experiment = self._recorded(client, again)
        assert seen == list(range(1, experiment.last_sequence + 1)), "events are missing, or came twice"
        assert experiment.state in ENDED
        assert experiment.state == experiment_pb2.TRAINING_STATE_SUCCEEDED or experiment.HasField("failure")
        kill.outcome = experiment_pb2.TrainingState.Name(experiment.state)
        check_consistent(self.server.data)
        return kill

    def _start(self, client: Client, request_id: str | None = None) -> str:
        request = a_training(self.project_id, self.dataset_id, algorithm="random_forest", request_id=request_id)
        request.spec.cross_validation.folds = 2
        return str(client.trainings.StartTraining(request).experiment.id)

    def _watch(self, client: Client, experiment_id: str, seen: list[int]) -> None:
        after = seen[-1] if seen else 0
        request = training_service_pb2.WatchTrainingRequest(experiment_id=experiment_id, after_sequence=after)
        for answer in client.trainings.WatchTraining(request):
            if answer.HasField("event"):
                seen.append(answer.event.sequence)

    def _recorded(self, client: Client, experiment_id: str) -> experiment_pb2.Experiment:
        """The experiment, once its run is in MLflow."""
        request = training_service_pb2.GetExperimentRequest(experiment_id=experiment_id)

        def is_recorded() -> bool:
            return bool(client.trainings.GetExperiment(request).experiment.mlflow_run_id)

        until(is_recorded, "the run is recorded")
        found: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
        return found


class Deletions(Story):
    """Deletions that are cut off between the row and the files."""

    name = "deletion"
    stages: ClassVar[Mapping[str, str]] = {"deleting": "files.remove"}

    def cut_off_by(self, striking: AbstractContextManager[None]) -> Kill:
        """What was deleted is gone, with its files."""
        with self.client() as client:
            dataset = upload(client, self.project_id)
            # The files of the upload are removed after its answer is decided.
            until(lambda: not list((self.server.data / "work").iterdir()), "the upload has tidied up")
        with striking, self.client() as client, _cut_off():
            client.datasets.DeleteDataset(dataset_service_pb2.DeleteDatasetRequest(dataset_id=dataset.id))
        kill = Kill(self.name, self.struck())
        self.server.start()
        with self.client() as client:
            try:
                client.datasets.GetDataset(dataset_service_pb2.GetDatasetRequest(dataset_id=dataset.id))
                kill.outcome = "was not deleted"
            except grpc.RpcError as error:
                assert refusal_of(error).reason == "NOT_FOUND", error
                kill.outcome = "was deleted"
        check_consistent(self.server.data)
        return kill


class Versions(Story):
    """Versions that are cut off on their way into DVC."""

    name = "version"
    stages: ClassVar[Mapping[str, str]] = {"adding": "version.added", "pushing": "version.pushed"}

    def cut_off_by(self, striking: AbstractContextManager[None]) -> Kill:
        """What was stored is in DVC in the end."""
        with striking, self.client() as client:
            dataset = upload(client, self.project_id)
        kill = Kill(self.name, self.struck())
        self.server.start()
        request = dataset_service_pb2.GetDatasetDvcPointerRequest(dataset_id=dataset.id)
        with self.client() as client:
            pushed = dvc_pb2.DVC_STATE_PUSHED
            until(
                lambda: client.datasets.GetDatasetDvcPointer(request).pointer.state == pushed, "the version is pushed"
            )
        kill.outcome = "was pushed"
        check_consistent(self.server.data)
        return kill


@contextmanager
def _cut_off() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        assert error.code() in CUT_OFF, error
