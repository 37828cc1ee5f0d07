"""Each write fails once: the first, the second, the third, until there is none left that could."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from uuid import uuid4

import grpc

from easyml.v1 import dataset_service_pb2, experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.faults.consistency import check_consistent
from tests.faults.plan import FaultPlan, until
from tests.servers import Client, Refusal, ServerProcess, refusal_of

ERRORS = ("enospc", "eio")
REFUSED = {"enospc": ("RESOURCE_EXHAUSTED", "DISK_FULL"), "eio": ("UNAVAILABLE", "PART_UNAVAILABLE")}
PUBLISHING = ("publish.fsync", "publish.rename", "publish.renamed")
UPLOADING = ("upload.write", "upload.fsync", "converter.write", *PUBLISHING, "database.commit")
TRAINING = ("model.write", "model.fsync", *PUBLISHING)
CONTENT = a_table(300_000)
"""Several batches."""


class Writes:
    """A server in which writes fail."""

    def __init__(self, server: ServerProcess, plan: FaultPlan) -> None:
        self.server = server
        self.plan = plan
        self.client = Client(server.address, server.key)
        self.project_id = a_project_of(self.client)
        self.dataset_id = upload(self.client, self.project_id).id

    def each(self, point: str, error: str) -> Iterator[int]:
        """Let the n-th write at a point fail, for each n until nothing failed; n."""
        for number in count(1):
            self.plan.arm(f"{point}@{number}={error}")
            yield number
            if self.plan.points.count(point) < number:
                assert number > 1, f"{point} is never passed"
                return

    def upload(self, point: str, error: str) -> int:
        """Uploads; how many failed."""
        failed = 0
        for _ in self.each(point, error):
            header = a_header(self.project_id, CONTENT, upload_id=str(uuid4()))
            refused = self._sent(header)
            check_consistent(self.server.data)
            if refused is not None:
                failed += 1
                assert refused.short == REFUSED[error], refused
                header.offset = self._safe_bytes(header.upload_id)
                assert self._sent(header) is None
                check_consistent(self.server.data)
        return failed

    def train(self, point: str, error: str) -> int:
        """Trainings whose files cannot be written; how many failed."""
        failed = 0
        for _ in self.each(point, error):
            ended = self._ended(self._start())
            check_consistent(self.server.data)
            if ended.state == experiment_pb2.TRAINING_STATE_FAILED:
                failed += 1
                assert ended.failure.reason == experiment_pb2.FAILURE_REASON_DISK_FULL, ended.failure
                assert ended.failure.kind == experiment_pb2.FAILURE_KIND_SYSTEM
                assert self._ended(self._start()).state == experiment_pb2.TRAINING_STATE_SUCCEEDED
                check_consistent(self.server.data)
        return failed

    def train_without_database(self, error: str) -> int:
        """Trainings while the database refuses a commit; how many it refused. Only the start is told of it."""
        numbers = []
        for number in self.each("database.commit", error):
            numbers.append(number)
            request = a_training(self.project_id, self.dataset_id, request_id=str(uuid4()))
            try:
                experiment_id = self._start(request)
            except grpc.RpcError as refused:
                assert refusal_of(refused).short == REFUSED[error]
                experiment_id = self._start(request)
            assert self._ended(experiment_id).state == experiment_pb2.TRAINING_STATE_SUCCEEDED
            until(lambda: bool(self._get(experiment_id).mlflow_run_id), "the run is recorded")  # noqa: B023
            check_consistent(self.server.data)
        return len(numbers) - 1

    def _sent(self, header: dataset_service_pb2.UploadHeader) -> Refusal | None:
        try:
            self.client.datasets.UploadDataset(an_upload(header, CONTENT))
        except grpc.RpcError as error:
            return refusal_of(error)
        return None

    def _safe_bytes(self, upload_id: str) -> int:
        try:
            request = dataset_service_pb2.GetUploadRequest(upload_id=upload_id)
            return int(self.client.datasets.GetUpload(request).upload.received_bytes)
        except grpc.RpcError as error:
            assert refusal_of(error).reason == "NOT_FOUND", error
            return 0

    def _start(self, request: pb.StartTrainingRequest | None = None) -> str:
        request = request or a_training(self.project_id, self.dataset_id)
        return str(self.client.trainings.StartTraining(request).experiment.id)

    def _ended(self, experiment_id: str) -> experiment_pb2.Experiment:
        list(self.client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=experiment_id)))
        return self._get(experiment_id)

    def _get(self, experiment_id: str) -> experiment_pb2.Experiment:
        request = pb.GetExperimentRequest(experiment_id=experiment_id)
        found: experiment_pb2.Experiment = self.client.trainings.GetExperiment(request).experiment
        return found


CASES: dict[str, Callable[[Writes, str], int]] = {
    **{f"upload {point}": lambda writes, error, point=point: writes.upload(point, error) for point in UPLOADING},
    **{f"training {point}": lambda writes, error, point=point: writes.train(point, error) for point in TRAINING},
    "training database.commit": lambda writes, error: writes.train_without_database(error),
}
