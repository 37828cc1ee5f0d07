"""What can happen to a Dask cluster in the middle of a training."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from easyml_server import __version__
from easyml_server.domain.events import StageStarted
from easyml_server.domain.training import Outcome, TrainingInterrupted
from easyml_server.trainers.dask.session import SharedFolder, Work
from easyml_server.trainers.dask.trainer import DaskTrainer, connected, start_dask_trainer
from easyml_server.trainers.local import TrainingLimits
from tests.conformance.trainers import DaskTrainers, Reports, a_shared_folder, available
from tests.dask import DaskCluster, dask_cluster
from tests.integration.jobs import a_job
from tests.integration.worker_entries import HERE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def folder(tmp_path: Path) -> SharedFolder:
    return a_shared_folder(tmp_path / "files")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture
def cluster(scheduler: DaskCluster) -> Iterator[DaskCluster]:
    """Each test has workers of its own."""
    yield scheduler
    scheduler.remove_workers()


@pytest.fixture
async def trainer_of(cluster: DaskCluster, folder: SharedFolder) -> AsyncIterator[DaskTrainers]:
    async with AsyncExitStack() as stack:
        yield DaskTrainers(stack, cluster, folder)


class Training:
    """One that runs until it is stopped, and left its process id in its folder."""

    def __init__(self, trainer: DaskTrainer, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._reports = Reports()
        self.task: asyncio.Task[Outcome | TrainingInterrupted]
        self.task = asyncio.create_task(trainer.train(a_job(folder), self._reports))

    async def process(self) -> psutil.Process:
        await self._reports.first(StageStarted)
        return psutil.Process(int((self._folder / "process").read_text()))


async def gone(process: psutil.Process, seconds: float = 10.0) -> None:
    await asyncio.to_thread(psutil.wait_procs, [process], seconds)
    assert not process.is_running()


async def test_a_worker_that_is_killed_interrupts_its_training_and_another_takes_it(
    cluster: DaskCluster, trainer_of: DaskTrainers, tmp_path: Path
) -> None:
    first = cluster.add_worker()
    trainer = await trainer_of("announce")
    training = Training(trainer, tmp_path / "one")
    process = await training.process()
    first.kill()
    outcome = await training.task
    assert isinstance(outcome, TrainingInterrupted)
    assert "lost" in outcome.cause
    await gone(process)
    await available(trainer, False)
    cluster.add_worker()
    await available(trainer)
    again = Training(trainer, tmp_path / "two")
    assert (await again.process()).is_running()


async def test_a_scheduler_that_is_restarted_interrupts_trainings_and_is_found_again(
    cluster: DaskCluster, trainer_of: DaskTrainers, tmp_path: Path
) -> None:
    worker = cluster.add_worker()
    trainer = await trainer_of("announce")
    training = Training(trainer, tmp_path / "one")
    process = await training.process()
    cluster.scheduler.kill()
    assert isinstance(await training.task, TrainingInterrupted)
    await gone(process)
    assert worker.ended() == 0, "workers leave with their scheduler"
    await available(trainer, False)
    assert trainer.slots == 0
    cluster.start_scheduler()
    cluster.add_worker()
    await available(trainer)
    assert (await Training(trainer, tmp_path / "two").process()).is_running()


async def test_a_server_that_stops_with_its_scheduler_does_not_hang(
    cluster: DaskCluster, folder: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, close = asyncio.Event(), Client.close

    def closed(self: Client, *args: Any, **options: Any) -> Any:
        closing.set()
        return close(self, *args, **options)

    monkeypatch.setattr(Client, "close", closed)
    async with asyncio.timeout(60):
        async with start_dask_trainer(cluster.address, folder, Work(TrainingLimits())) as trainer:
            cluster.add_worker()
            await available(trainer)
            await asyncio.to_thread(cluster.scheduler.kill)
            # Here, where Dask ends its own tasks, it took the end of the trainer's for one of them.
            await closing.wait()
    cluster.start_scheduler()


async def test_a_cancelled_fit_has_ended_when_cancel_returns(
    cluster: DaskCluster, trainer_of: DaskTrainers, tmp_path: Path
) -> None:
    cluster.add_worker()
    training = Training(await trainer_of("announce"), tmp_path / "one")
    process = await training.process()
    training.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training.task
    assert not process.is_running()


async def test_a_training_whose_server_has_gone_ends(
    cluster: DaskCluster, folder: SharedFolder, tmp_path: Path
) -> None:
    cluster.add_worker()
    limits = TrainingLimits(ask_seconds=0.2, terminate_seconds=0.2)
    async with connected(cluster.address, folder, Work(limits, f"{HERE}:announce", (HERE,))) as session:
        session.listen()
        while not session.fit:
            await session.look_around(patiently=True)
        output = tmp_path / "one"
        output.mkdir()
        reports = Reports()
        run = session.submit(a_job(output))
        following = asyncio.create_task(run.outcome(reports))
        await reports.first(StageStarted)
        process = psutil.Process(int((output / "process").read_text()))
    # Nobody cancelled anything: only the connection is closed, as by the death of a server.
    await gone(process)
    following.cancel()
    await asyncio.gather(following, run.close(), return_exceptions=True)


async def test_work_of_others_on_the_cluster_leaves_fewer_slots(
    cluster: DaskCluster, folder: SharedFolder, trainer_of: DaskTrainers, tmp_path: Path
) -> None:
    cluster.add_worker(threads=2)
    training = Training(await trainer_of("announce"), tmp_path / "one")
    await training.process()
    async with connected(cluster.address, folder, Work(TrainingLimits(), f"{HERE}:announce", (HERE,))) as other:
        await other.look_around(patiently=True)
        assert other.slots == 1
    training.task.cancel()
    await asyncio.wait([training.task])


async def said_of(cluster: DaskCluster, folder: SharedFolder) -> str:
    """Why the one worker that joins gets no trainings."""
    async with connected(cluster.address, folder, Work(TrainingLimits(), f"{HERE}:announce", (HERE,))) as session:
        while not session.refused:
            await session.look_around(patiently=True)
            assert not session.fit
        assert session.slots == 0
        (sentence,) = session.refused
    return sentence


async def test_a_worker_with_another_version_is_refused_by_both_versions(
    cluster: DaskCluster, folder: SharedFolder, tmp_path: Path
) -> None:
    metadata = tmp_path / "site" / "scikit_learn-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: scikit-learn\nVersion: 9.9.9\n")
    cluster.add_worker(PYTHONPATH=str(tmp_path / "site"))
    sentence = await said_of(cluster, folder)
    assert "scikit-learn 9.9.9 there, 1.9." in sentence
    assert "Install there what the server has" in sentence


async def test_a_worker_without_easyml_is_refused(cluster: DaskCluster, folder: SharedFolder, tmp_path: Path) -> None:
    hidden = tmp_path / "site" / "easyml_server"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('No module named easyml_server')\n")
    cluster.add_worker(PYTHONPATH=str(tmp_path / "site"))
    sentence = await said_of(cluster, folder)
    assert f"easyml-server {__version__} is not installed there" in sentence
    assert "easyml-server[dask]" in sentence


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self")
async def test_a_worker_that_does_not_see_the_files_is_refused(
    cluster: DaskCluster, folder: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One path that is another folder for each process: as with a share that is mounted on the server only.
    monkeypatch.chdir(folder.root)
    cluster.add_worker()
    sentence = await said_of(cluster, SharedFolder(Path("/proc/self/cwd"), folder.marker))
    assert "does not see the server's files in /proc/self/cwd" in sentence
    assert "EASYML_ARTIFACT_URL" in sentence
