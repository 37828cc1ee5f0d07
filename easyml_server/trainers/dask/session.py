"""One connection to a Dask cluster: which of its workers are fit, how many trainings they take, and those that run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from distributed import Client

from easyml_server.domain.training import TrainingJob
from easyml_server.trainers import codec
from easyml_server.trainers.dask.run import Run
from easyml_server.trainers.dask.versions import differences, installed
from easyml_server.trainers.dask.worker import Assignment, look, train
from easyml_server.trainers.local import TRAINING_ENTRY, TRAINING_PRELOAD, TrainingLimits

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedFolder:
    """The folder of what trainings read and write, and a file in it whose content no other folder has."""

    root: Path
    marker: str


@dataclass(frozen=True, slots=True)
class Work:
    """What workers are told to do."""

    limits: TrainingLimits
    entry: str = TRAINING_ENTRY
    preload: tuple[str, ...] = TRAINING_PRELOAD


class Session:
    """A client that is connected. Workers get work once they were looked at."""

    def __init__(self, client: Client, folder: SharedFolder, work: Work) -> None:
        self._client = client
        self._folder = folder
        self._work = work
        self._topic = f"easyml-{uuid4()}"
        self._runs: dict[str, Run] = {}
        self._findings: dict[str, str | None] = {}
        """By address: what is wrong with a worker, None if nothing is."""
        self._looks: dict[str, asyncio.Task[str | None]] = {}
        self._workers: Mapping[str, Any] = {}
        self._foreign = 0

    @property
    def slots(self) -> int:
        """How many trainings of ours the cluster can run at once."""
        threads = sum(int(self._workers[address]["nthreads"]) for address in self.fit)
        return max(threads - self._foreign, 0)

    @property
    def fit(self) -> Sequence[str]:
        """Addresses of workers that can train."""
        return [address for address in self._workers if self._findings.get(address, "") is None]

    @property
    def refused(self) -> Sequence[str]:
        """What is wrong with the others, a sentence each."""
        unanswered = (f"The Dask worker {address} does not answer; look at its log." for address in self._looks)
        return [*(found for address in self._workers if (found := self._findings.get(address))), *unanswered]

    def listen(self) -> None:
        """Hear of trainings from now on."""
        self._client.subscribe_topic(self._topic, self._hear)

    async def keep(self) -> AsyncIterator[None]:
        """Follow which workers there are until the connection is lost; a step for each look."""
        while self._client.status == "running":
            try:
                await self.look_around()
            except TimeoutError:
                # A scheduler that is busy costs no training; just now it gets no more of them.
                self._workers = {}
            yield
            await asyncio.sleep(LOOK_SECONDS)

    async def look_around(self, *, patiently: bool = False) -> None:
        """See who is there; wait for what new workers answer if `patiently`."""
        if (scheduler := self._client.scheduler) is None:
            raise ConnectionError("the connection was closed")
        async with asyncio.timeout(ANSWER_SECONDS):
            identity = await scheduler.identity(n_workers=-1)
            processing = await self._client.processing()
        workers = {address: worker for address, worker in identity["workers"].items() if worker["status"] == "running"}
        self._look_at_new(workers)
        if patiently and self._looks:
            await asyncio.wait(self._looks.values(), timeout=ANSWER_SECONDS)
        self._note_findings(workers)
        self._workers = workers
        keys = {key for address in self.fit for key in processing.get(address, ())}
        self._foreign = len(keys - self._runs.keys())
        self._miss_workers(identity["workers"])

    def submit(self, job: TrainingJob) -> Run:
        """Give a training to the cluster."""
        run = Run(f"easyml-training-{job.experiment_id}-{uuid4().hex[:8]}")
        self._runs[run.key] = run
        work = self._work
        assignment = Assignment(run.key, self._topic, codec.encode_job(job), work.limits, work.entry, work.preload)
        if not (workers := self.fit):
            run.interrupt("No worker of the Dask cluster was there to run this")
            return run
        run.follow(
            self._client.submit(
                train,  # type: ignore[arg-type]  # it knows functions only
                assignment,
                key=run.key,
                workers=workers,
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
        )
        return run

    async def forget(self, run: Run) -> None:
        """It is over."""
        del self._runs[run.key]
        await run.close()

    async def close(self) -> None:
        """The connection is lost, or nobody needs it any more."""
        for each in self._looks.values():
            each.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)
        for run in self._runs.values():
            run.interrupt("The connection to the Dask cluster was lost")

    def _hear(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, message = event
        if (run := self._runs.get(message["key"])) is not None:
            run.hear(message)

    def _look_at_new(self, workers: Mapping[str, Any]) -> None:
        for address in workers:
            if address not in self._findings and address not in self._looks:
                self._looks[address] = asyncio.create_task(self._look_at(address))

    def _note_findings(self, workers: Mapping[str, Any]) -> None:
        for address, task in list(self._looks.items()):
            if address not in workers:
                task.cancel()
            elif task.done():
                self._findings[address] = found = task.result()
                if found is not None:
                    _log.warning("%s", found)
                else:
                    _log.info("The Dask worker %s takes trainings.", address)
            else:
                continue
            del self._looks[address]
        # One that comes back, at whatever address, may be another.
        self._findings = {address: found for address, found in self._findings.items() if address in workers}

    def _miss_workers(self, workers: Mapping[str, Any]) -> None:
        for run in self._runs.values():
            if run.address is not None and run.address not in workers:
                run.interrupt(f"The Dask worker {run.address} that ran this was lost")

    async def _look_at(self, address: str) -> str | None:
        """Ask until it answers; what is wrong with it."""
        folder = self._folder
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    answers = await self._client.run(
                        look,
                        str(folder.root),
                        folder.marker,
                        self._work.preload,
                        workers=[address],
                        on_error="return",
                    )
                return "; ".join(self._faults(address, answers[address])) or None
            _log.warning("The Dask worker %s does not answer; look at its log.", address)

    def _faults(self, address: str, answer: Mapping[str, Any] | Exception) -> Iterator[str]:
        # Of Dask's making, so its type is not the worker's.
        if isinstance(answer, Exception) and "ModuleNotFoundError" in repr(answer):
            yield (
                f"The Dask worker {address} gets no trainings: easyml-server {installed()['easyml-server']} is not "
                f"installed there ({answer}); install easyml-server[dask] of that version, and restart it."
            )
        elif isinstance(answer, Exception):
            yield f"The Dask worker {address} gets no trainings: it could not be looked at ({answer!r}); see its log."
        elif different := list(differences(answer["versions"], installed())):
            yield (
                f"The Dask worker {address} gets no trainings: {'; '.join(different)}. Install there what the server "
                "has, from the same lock file or image, and restart it."
            )
        else:
            yield from self._blindness(address, answer)

    def _blindness(self, address: str, answer: Mapping[str, Any]) -> Iterator[str]:
        root = self._folder.root
        if answer["marker"] != (root / self._folder.marker).read_text().strip():
            yield (
                f"The Dask worker {address} gets no trainings: it does not see the server's files in {root} "
                f"(as user {answer['user']}); mount the same folder there (EASYML_ARTIFACT_URL, or the data folder "
                "where that names a bucket), and restart it."
            )
        elif not answer["writable"]:
            yield (
                f"The Dask worker {address} gets no trainings: it cannot write to {root}/work as user "
                f"{answer['user']}; run it as the server's user, and restart it."
            )
