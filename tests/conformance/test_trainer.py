"""What every Trainer promises, whoever runs the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from easyml_server.domain.events import FoldCompleted, IterationCompleted, ResourceUsage, StageStarted, WarningRaised
from easyml_server.domain.experiments import FailureKind, FailureReason, TrainingStage, TrainingWarningKind
from easyml_server.domain.training import SplitMade, TrainingFailed, TrainingSucceeded
from tests.conformance.trainers import SLOTS, DaskTrainers, LocalTrainers, Reports, Trainers, a_shared_folder
from tests.integration.jobs import a_job


@pytest.fixture(params=["local", "dask"])
async def trainer_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Trainers]:
    async with AsyncExitStack() as stack:
        if request.param == "local":
            yield LocalTrainers(stack)
        else:
            folder = a_shared_folder(tmp_path_factory.mktemp("files"))
            yield DaskTrainers(stack, request.getfixturevalue("dask"), folder)


async def test_a_crash_fails_the_training_with_signal_and_stage(trainer_of: Trainers, tmp_path: Path) -> None:
    trainer = await trainer_of("crash")
    outcome = await trainer.train(a_job(tmp_path), Reports())
    assert isinstance(outcome, TrainingFailed)
    failure = outcome.failure
    assert (failure.kind, failure.reason) == (FailureKind.SYSTEM, FailureReason.WORKER_DIED)
    assert (failure.exit_code, failure.stage) == (-11, TrainingStage.FITTING)
    assert "SIGSEGV" in failure.message


async def test_an_early_exit_fails_the_training_with_its_code(trainer_of: Trainers, tmp_path: Path) -> None:
    outcome = await (await trainer_of("leave")).train(a_job(tmp_path), Reports())
    assert isinstance(outcome, TrainingFailed)
    assert (outcome.failure.reason, outcome.failure.exit_code) == (FailureReason.WORKER_DIED, 7)


async def test_nonsense_from_a_worker_fails_only_its_training(trainer_of: Trainers, tmp_path: Path) -> None:
    outcome = await (await trainer_of("babble")).train(a_job(tmp_path), Reports())
    assert isinstance(outcome, TrainingFailed)
    assert outcome.failure.reason is FailureReason.INTERNAL


async def test_memory_beyond_the_limit_ends_the_training(trainer_of: Trainers, tmp_path: Path) -> None:
    outcome = await (await trainer_of("allocate")).train(a_job(tmp_path, memory_bytes=256 << 20), Reports())
    assert isinstance(outcome, TrainingFailed)
    failure = outcome.failure
    assert (failure.kind, failure.reason) == (FailureKind.SYSTEM, FailureReason.OUT_OF_MEMORY)
    assert "EASYML_WORKER_MEMORY_BYTES" in failure.message
    assert failure.stage is TrainingStage.FITTING


async def test_time_beyond_the_limit_ends_the_training(trainer_of: Trainers, tmp_path: Path) -> None:
    outcome = await (await trainer_of("stubborn")).train(a_job(tmp_path, max_seconds=0.3), Reports())
    assert isinstance(outcome, TrainingFailed)
    assert (outcome.failure.kind, outcome.failure.reason) == (FailureKind.USER, FailureReason.TIME_LIMIT)


@pytest.mark.parametrize("entry", ["obedient", "deaf", "stubborn"])
async def test_a_cancelled_training_is_gone(trainer_of: Trainers, tmp_path: Path, entry: str) -> None:
    trainer, reports = await trainer_of(entry, ask_seconds=5 if entry == "obedient" else 0.1), Reports()
    task = asyncio.create_task(trainer.train(a_job(tmp_path), reports))
    await reports.first(StageStarted)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "asked").exists() == (entry == "obedient")


async def test_a_second_cancel_does_not_leave_the_worker_behind(trainer_of: Trainers, tmp_path: Path) -> None:
    trainer, reports = await trainer_of("stubborn"), Reports()
    task = asyncio.create_task(trainer.train(a_job(tmp_path), reports))
    await reports.first(ResourceUsage)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_one_training_leaves_the_other_alone(trainer_of: Trainers, tmp_path: Path) -> None:
    trainer, first, second = await trainer_of("obedient"), Reports(), Reports()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one = asyncio.create_task(trainer.train(a_job(folders[0]), first))
    two = asyncio.create_task(trainer.train(a_job(folders[1]), second))
    await asyncio.gather(first.first(StageStarted), second.first(StageStarted))
    one.cancel()
    await asyncio.wait([one])
    assert not two.done()
    assert not (folders[1] / "asked").exists()
    two.cancel()
    await asyncio.wait([two])


async def test_reports_come_in_order_and_then_the_outcome(trainer_of: Trainers, tmp_path: Path) -> None:
    reports = Reports()
    outcome = await (await trainer_of("succeed")).train(a_job(tmp_path), reports)
    assert isinstance(outcome, TrainingSucceeded)
    told = [report for report in reports if not isinstance(report, ResourceUsage)]
    assert [type(report) for report in told] == [StageStarted, SplitMade, *[FoldCompleted] * 3]
    assert [report.fold for report in told if isinstance(report, FoldCompleted)] == [1, 2, 3]


async def test_a_flood_of_iterations_is_thinned_and_counted(trainer_of: Trainers, tmp_path: Path) -> None:
    reports = Reports()
    trainer = await trainer_of("flood", events_per_run=100)
    outcome = await trainer.train(a_job(tmp_path), reports)
    assert isinstance(outcome, TrainingSucceeded)
    kept = [report for report in reports if isinstance(report, IterationCompleted)]
    assert 0 < len(kept) < 100
    warning = reports[-1]
    assert isinstance(warning, WarningRaised)
    assert warning.warning.kind is TrainingWarningKind.EVENTS_THINNED
    assert str(10_001 - len(kept)) in warning.warning.message


async def test_trainings_beyond_the_slots_wait_for_one(trainer_of: Trainers, tmp_path: Path) -> None:
    trainer = await trainer_of("succeed")
    assert trainer.slots == SLOTS
    outcomes = await asyncio.gather(*(trainer.train(a_job(tmp_path), Reports()) for _ in range(2 * SLOTS + 1)))
    assert all(isinstance(outcome, TrainingSucceeded) for outcome in outcomes)


async def test_what_a_worker_uses_is_told(trainer_of: Trainers, tmp_path: Path) -> None:
    trainer, reports = await trainer_of("stubborn"), Reports()
    task = asyncio.create_task(trainer.train(a_job(tmp_path), reports))
    await reports.first(ResourceUsage)
    task.cancel()
    await asyncio.wait([task])
    usage = next(report for report in reports if isinstance(report, ResourceUsage))
    assert usage.memory_bytes > 1 << 20
    assert usage.cpu_seconds >= 0
