"""A disk that is full, and a database that is away: said, nothing half-written, and it goes on once that is over."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import psutil
import pytest

from easyml.v1 import dataset_service_pb2, experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_header, a_project_of, a_table, a_training, an_upload, upload
from tests.faults.consistency import check_consistent
from tests.faults.plan import FaultPlan, until
from tests.servers import Client, Refusal, ServerProcess, log_of, refusal, refusal_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 1 << 20
FORK_SERVER = "easyml_server.trainers.forkserver"


class SmallDisk:
    """A disk of its own for the data folder, and a file that takes up its room."""

    def __init__(self, server: ServerProcess) -> None:
        self._ballast = server.data / "ballast"
        self._data = server.data

    def leave(self, room: int) -> None:
        """From now on there is so much room."""
        free = os.statvfs(self._data)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - room)

    def leave_to_workers(self, room: int) -> None:
        """The same: all are on this disk."""
        self.leave(room)

    def free(self) -> None:
        """There is room again."""
        self._ballast.unlink()


class SizeLimit:
    """A limit on the size of files instead, for machines where a test may not mount: the kernel refuses the write."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._before = self._of(server.running.pid)

    def leave(self, room: int) -> None:
        """No file of the server's is larger than that."""
        self._limit([self._server.running.pid], room)

    def leave_to_workers(self, room: int) -> None:
        """No file of a worker's is larger than that; the server's database is, already."""
        family = self._server.family()
        self._limit([each.pid for each in family if FORK_SERVER in each.cmdline()], room)

    def free(self) -> None:
        """Files may be as large as before."""
        self._limit([each.pid for each in self._server.family()], self._before[0])

    def _limit(self, processes: list[int], size: int) -> None:
        assert processes
        for process in processes:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (size, self._before[1]))

    def _of(self, process: int) -> tuple[int, int]:
        return resource.prlimit(process, resource.RLIMIT_FSIZE)


Disk = SmallDisk | SizeLimit


@contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """A small disk there for a while, if this process may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(params=[SmallDisk, SizeLimit])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ServerProcess, Disk]]:
    data = tmp_path / "data"
    with mounted(data) as is_mounted:
        if request.param is SmallDisk and not is_mounted:
            pytest.skip("this process may not mount a disk; the limit on file sizes is tried instead")
        with serving(data, MIN_FREE_DISK_BYTES="0", PRELOAD="true") as server:
            yield server, request.param(server)


def test_a_disk_that_fills_up_in_the_middle_of_an_upload(filled: tuple[ServerProcess, Disk]) -> None:
    server, disk = filled
    content = a_table(900_000)
    with Client(server.address, server.key) as client:
        header = a_header(a_project_of(client), content, upload_id=str(uuid4()))
        refused = refused_once(client, header, content, lambda: disk.leave(10 * MIB))
        assert refused.short == ("RESOURCE_EXHAUSTED", "DISK_FULL")
        check_consistent(server.data)
        disk.free()
        request = dataset_service_pb2.GetUploadRequest(upload_id=header.upload_id)
        header.offset = client.datasets.GetUpload(request).upload.received_bytes
        assert header.offset == 8 * MIB
        if isinstance(disk, SmallDisk):
            # All comes in, and the table made of it finds no room.
            (received,) = (server.data / "uploads").iterdir()
            disk.leave(len(content) - received.stat().st_size + MIB // 4)
            refused = refusal(client.datasets.UploadDataset, an_upload(header, content))
            assert refused.short == ("RESOURCE_EXHAUSTED", "DISK_FULL")
            check_consistent(server.data)
            disk.free()
            header.offset = len(content)
        dataset = client.datasets.UploadDataset(an_upload(header, content)).dataset
        assert dataset.current_version.sha256 == header.sha256
        check_consistent(server.data)


def refused_once(
    client: Client, header: dataset_service_pb2.UploadHeader, content: bytes, fill: Callable[[], None]
) -> Refusal:
    """How an upload is refused for which there was room when it began."""
    is_filled = threading.Event()

    def messages() -> Iterator[dataset_service_pb2.UploadDatasetRequest]:
        header_first = an_upload(header, content)
        yield next(header_first)
        is_filled.wait(60)
        yield from header_first

    call = client.datasets.UploadDataset.future(messages())
    call.initial_metadata()
    fill()
    is_filled.set()
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    return refusal_of(caught.value)


def test_a_disk_that_fills_up_in_the_middle_of_a_model(filled: tuple[ServerProcess, Disk]) -> None:
    server, disk = filled
    with Client(server.address, server.key) as client:
        project_id = a_project_of(client)
        request = a_training(project_id, upload(client, project_id).id, algorithm="random_forest")
        request.spec.hyperparameters.update({"n_estimators": 800})
        # The workers that there will be inherit the limit.
        until(lambda: len(fork_servers(server)) == 2, "both fork servers are there")
        # Too little for this model (18 MiB), enough for the database to say so: its log is cut at 4 MiB.
        disk.leave_to_workers(8 * MIB)
        failed = ended(client, request)
        assert failed.state == experiment_pb2.TRAINING_STATE_FAILED
        assert failed.failure.reason == experiment_pb2.FAILURE_REASON_DISK_FULL
        check_consistent(server.data)
        disk.free()
        request.ClearField("request_id")
        assert ended(client, request).state == experiment_pb2.TRAINING_STATE_SUCCEEDED
        check_consistent(server.data)


def fork_servers(server: ServerProcess) -> list[psutil.Process]:
    return [each for each in server.family() if FORK_SERVER in each.cmdline()]


def ended(client: Client, request: pb.StartTrainingRequest) -> experiment_pb2.Experiment:
    experiment_id = client.trainings.StartTraining(request).experiment.id
    list(client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=experiment_id)))
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(
        pb.GetExperimentRequest(experiment_id=experiment_id)
    ).experiment
    return found


def test_what_a_training_came_to_waits_for_a_database_that_is_locked(tmp_path: Path) -> None:
    plan = FaultPlan(tmp_path / "plan")
    with serving(tmp_path / "data", FAULT=str(plan.path)) as server, Client(server.address, server.key) as client:
        project_id = a_project_of(client)
        dataset_id = upload(client, project_id).id
        plan.arm("training.trained=stop")
        experiment_id = client.trainings.StartTraining(a_training(project_id, dataset_id)).experiment.id
        process = psutil.Process(server.running.pid)
        until(lambda: process.status() == psutil.STATUS_STOPPED, "the server has stopped itself")
        with closing(sqlite3.connect(server.data / "easyml.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            server.running.send_signal(signal.SIGCONT)
            until(lambda: "outcome_waits" in log_of(server.data).read_text(), "the outcome could not be written")
            assert list(server.data.glob("files/*/models/*")), "the model was given up"
            other.execute("ROLLBACK")
        seen = [
            answer.event.sequence
            for answer in client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=experiment_id))
            if answer.HasField("event")
        ]
        request = pb.GetExperimentRequest(experiment_id=experiment_id)
        experiment = client.trainings.GetExperiment(request).experiment
        assert experiment.state == experiment_pb2.TRAINING_STATE_SUCCEEDED
        assert seen == list(range(1, experiment.last_sequence + 1))
        check_consistent(server.data)
