"""The Trainer of a Dask cluster. A cluster that is away is waited for: trainings stay in the queue meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from distributed import Client

from easyml_server.domain.training import Outcome, Report, TrainingInterrupted, TrainingJob
from easyml_server.trainers.dask.session import CONNECT_SECONDS, Session, SharedFolder, Work
from easyml_server.trainers.dask.tls import why_away
from easyml_server.trainers.local import to_the_end

RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class DaskTrainer:
    """Each training is a task on a worker that is fit for it."""

    def __init__(self, address: str, folder: SharedFolder, work: Work) -> None:
        self._address = address
        self._folder = folder
        self._work = work
        self._session: Session | None = None
        self._changed = asyncio.Event()

    @property
    def slots(self) -> int:
        """How many trainings of this server the cluster has place for; none while it is away."""
        return 0 if self._session is None else self._session.slots

    async def train(self, job: TrainingJob, report: Callable[[Report], None]) -> Outcome | TrainingInterrupted:
        """See Trainer.train."""
        session = self._session
        if session is None:
            return TrainingInterrupted("The Dask cluster was away")
        run = session.submit(job)
        try:
            return await run.outcome(report)
        except asyncio.CancelledError:
            await to_the_end(run.stop())
            raise
        finally:
            await to_the_end(session.forget(run))

    async def availability(self) -> AsyncIterator[bool]:
        """Whether trainings can run, now and whenever that changes."""
        told = None
        while True:
            self._changed.clear()
            available = self._session is not None and bool(self._session.fit)
            if available != told:
                told = available
                yield available
            await self._changed.wait()

    async def keep_connected(self) -> None:
        """Connect, and connect again whenever the cluster is back, until cancelled."""
        away = False
        while True:
            try:
                async with connected(self._address, self._folder, self._work) as session:
                    self._session = session
                    away = False
                    _log.info("Connected to the Dask cluster at %s.", self._address)
                    async for _ in session.keep():
                        self._changed.set()
                _log.warning("The connection to the Dask cluster at %s was lost; trainings wait for it.", self._address)
            except (OSError, TimeoutError) as error:
                if not away:
                    cause = why_away(error)
                    _log.warning("The Dask cluster at %s is away; trainings wait for it (%s).", self._address, cause)
                away = True
            except Exception:
                _log.exception("The connection to the Dask cluster at %s broke.", self._address)
            finally:
                self._session = None
                self._changed.set()
            await asyncio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def connected(address: str, folder: SharedFolder, work: Work) -> AsyncIterator[Session]:
    """A session as long as the connection lasts; OSError if there is none."""
    client = Client(address, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS, name="easyml-server")
    try:
        await client
        session = Session(client, folder, work)
        try:
            session.listen()
            yield session
        finally:
            await session.close()
    finally:
        # In a task of its own: Dask takes a cancellation that comes while it closes for its own, and it would be lost.
        await to_the_end(_closed(client))


async def _closed(client: Client) -> None:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.close()


@asynccontextmanager
async def start_dask_trainer(address: str, folder: SharedFolder, work: Work) -> AsyncIterator[DaskTrainer]:
    """A trainer that connects in the background."""
    trainer = DaskTrainer(address, folder, work)
    keeper = asyncio.create_task(trainer.keep_connected(), name="dask")
    try:
        yield trainer
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
