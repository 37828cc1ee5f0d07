"""Trainings in worker processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace

from easyml_server.domain.events import StageStarted
from easyml_server.domain.experiments import Failure, FailureKind, FailureReason, TrainingStage
from easyml_server.domain.training import Outcome, Report, TrainingFailed, TrainingJob, TrainingSucceeded
from easyml_server.processes.resources import current_usage
from easyml_server.trainers import codec
from easyml_server.trainers.processes import (
    BrokenMessage,
    ProcessLimits,
    ProcessPool,
    WorkerProcess,
    start_pool,
    worker_environment,
)
from easyml_server.trainers.thinning import EventThinner

TRAINING_ENTRY = "easyml_server.trainers.worker:train"
# All that a training imports, also what libraries import when they are first used (a test compares): what is missing
# here each worker would import again.
TRAINING_PRELOAD = (
    "easyml_server.trainers.worker",
    "pandas",
    "narwhals._interchange.dataframe",
    "narwhals._pandas_like.namespace",
    "narwhals.stable.v2._namespace",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
    "lightgbm",
    "xgboost",
    "skops.io",
    "skl2onnx",
    "onnxmltools.convert.lightgbm.operator_converters.LightGbm",
    "onnxmltools.convert.xgboost.operator_converters.XGBoost",
    "easyml_server.ml.training",
)
CANCEL = b"cancel"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingLimits:
    """How the pool keeps order. The first two are settings of the server; the others rarely change."""

    events_per_second: float = 50
    events_per_run: int = 100_000
    usage_seconds: float = 5.0
    watch_seconds: float = 0.2
    ask_seconds: float = 2.0
    terminate_seconds: float = 2.0


class LocalTrainer:
    """The Trainer of one machine: each training in a process of its own, watched from outside."""

    def __init__(
        self, pool: ProcessPool, slots: int, limits: TrainingLimits = TrainingLimits(), entry: str = TRAINING_ENTRY
    ) -> None:
        self.pool = pool
        self._slots = slots
        self._limits = limits
        self._entry = entry
        self._free = asyncio.Semaphore(slots)

    @property
    def slots(self) -> int:
        """How many trainings run at once."""
        return self._slots

    async def train(self, job: TrainingJob, report: Callable[[Report], None]) -> Outcome:
        """See Trainer.train. Raises Unavailable when no worker can be started."""
        async with self._free:
            worker = await self.pool.start(self._entry, limits=ProcessLimits(), folder=job.output_path)
            return await _Run(job, worker, report, self._limits).outcome()

    async def availability(self) -> AsyncIterator[bool]:
        """This machine is always there."""
        yield True


class _Run:
    """One training in its worker."""

    def __init__(
        self, job: TrainingJob, worker: WorkerProcess, report: Callable[[Report], None], limits: TrainingLimits
    ) -> None:
        self._job = job
        self._worker = worker
        self._report = report
        self._limits = limits
        self._thinner = EventThinner(limits.events_per_second, limits.events_per_run)
        self._stage: TrainingStage | None = None

    async def outcome(self) -> Outcome:
        """Run to the end; the worker is gone afterwards, whatever happens."""
        try:
            await self._worker.send(codec.encode_job(self._job))
            outcome = await _first_of(self._follow(), self._watch_memory(), self._watch_time())
        except asyncio.CancelledError:
            await to_the_end(self._stop())
            raise
        finally:
            await to_the_end(self._worker.close())
        if warning := self._thinner.warning():
            self._report(warning)
        return outcome

    async def _follow(self) -> Outcome:
        try:
            while (message := await self._worker.receive()) is not None:
                if outcome := self._take(codec.decode_training(message)):
                    return outcome
                # Messages that wait already are handed over without a pause; others want their turn.
                await asyncio.sleep(0)
        except (BrokenMessage, ValueError):
            _log.exception("The worker of experiment %s sent what is no message.", self._job.experiment_id)
            return self._failed(FailureReason.INTERNAL, "The worker and the server did not understand each other.")
        return self._died(await self._worker.wait())

    def _take(self, message: codec.TrainingMessage) -> Outcome | None:
        match message:
            case TrainingSucceeded():
                return message
            case TrainingFailed(failure):
                return TrainingFailed(replace(failure, stage=failure.stage or self._stage))
            case codec.Crashed(error, trace):
                _log.error("Experiment %s met %s at %s", self._job.experiment_id, error, " < ".join(reversed(trace)))
                return self._failed(FailureReason.INTERNAL, "The training met an error that is the server's fault.")
            case _:
                self._tell(message)
                return None

    def _tell(self, report: Report) -> None:
        if isinstance(report, StageStarted):
            self._stage = report.stage
        if self._thinner.admits(report, asyncio.get_running_loop().time()):
            self._report(report)

    async def _watch_memory(self) -> Outcome:
        """Compare resident memory with the limit, and tell now and then what is used.

        Not RLIMIT_AS: boosters reserve far more address space than they use.
        """
        loop = asyncio.get_running_loop()
        told = loop.time()
        while True:
            await asyncio.sleep(self._limits.watch_seconds)
            usage = await current_usage(self._worker.process_id)
            if usage and usage.memory_bytes > self._job.memory_bytes:
                self._worker.signal(signal.SIGKILL)
                return self._too_large(usage.memory_bytes)
            if usage and loop.time() - told >= self._limits.usage_seconds:
                told = loop.time()
                self._tell(usage)

    async def _watch_time(self) -> Outcome:
        await asyncio.sleep(self._job.spec.max_seconds)
        return self._failed(
            FailureReason.TIME_LIMIT,
            f"The training took longer than its limit of {self._job.spec.max_seconds:g} seconds;"
            " allow more, or train with fewer rows, columns or folds.",
            FailureKind.USER,
        )

    async def _stop(self) -> None:
        """Ask, then terminate, then leave the rest to the kill that follows."""
        exited = asyncio.ensure_future(self._worker.wait())
        # What it still says must be read, or it would wait for that and never hear the question.
        drained = asyncio.create_task(self._drain())
        try:
            await self._worker.send(CANCEL)
            if not await _within(self._limits.ask_seconds, exited):
                self._worker.signal(signal.SIGTERM)
                await _within(self._limits.terminate_seconds, exited)
        finally:
            exited.cancel()
            drained.cancel()
            await asyncio.gather(exited, drained, return_exceptions=True)

    async def _drain(self) -> None:
        with contextlib.suppress(BrokenMessage):
            while True:
                if await self._worker.receive() is None:
                    return
                await asyncio.sleep(0)

    def _too_large(self, used: int) -> TrainingFailed:
        limit = self._job.memory_bytes
        return self._failed(
            FailureReason.OUT_OF_MEMORY,
            f"The training used {_mebibytes(used)} of memory, more than EASYML_WORKER_MEMORY_BYTES allows"
            f" ({_mebibytes(limit)}); train with fewer rows or columns, or a smaller model.",
        )

    def _died(self, exit_code: int) -> TrainingFailed:
        during = f" while {self._stage.replace('_', ' ')}" if self._stage else ""
        message = f"The worker {_ending(exit_code)}{during}. Nothing else was affected; start the training again."
        return self._failed(FailureReason.WORKER_DIED, message, exit_code=exit_code)

    def _failed(
        self,
        reason: FailureReason,
        message: str,
        kind: FailureKind = FailureKind.SYSTEM,
        exit_code: int | None = None,
    ) -> TrainingFailed:
        return TrainingFailed(Failure(kind, reason, message, self._stage, exit_code))


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"was ended by signal {-exit_code} ({name}){hint}"


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


async def _first_of(*ways: Coroutine[None, None, Outcome]) -> Outcome:
    """What the first way to end says; the others are left."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _within(seconds: float, exited: asyncio.Future[int]) -> bool:
    done, _ = await asyncio.wait([exited], timeout=seconds)
    return bool(done)


def training_environment(threads: int = 1) -> dict[str, str]:
    """What training workers see of the environment."""
    # Sets of text are walked in the order of their hashes: fixed, a training repeats.
    return worker_environment(threads, {"PYTHONHASHSEED": "0"})


async def to_the_end(work: Coroutine[None, None, None]) -> None:
    """Do what leaves no process behind, even if this task is cancelled (again) meanwhile; then say so."""
    task = asyncio.create_task(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


@contextlib.asynccontextmanager
async def start_local_trainer(
    slots: int,
    *,
    threads: int = 1,
    limits: TrainingLimits = TrainingLimits(),
    entry: str = TRAINING_ENTRY,
    warm: bool = True,
) -> AsyncIterator[LocalTrainer]:
    """A trainer with `slots` workers at once of `threads` threads each; it warms up in the background, if at once.

    To be entered in the thread that lives as long as the server.
    """
    async with start_pool(TRAINING_PRELOAD, training_environment(threads), warm=warm) as pool:
        yield LocalTrainer(pool, slots, limits, entry)
