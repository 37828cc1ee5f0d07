"""Reads the file of models again when it is told to (SIGHUP), and has what it says served, or what was before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from easyml_server.serving.known import CannotStart, read_models_file
from easyml_server.serving.metrics import ServingMetrics
from easyml_server.serving.predictors import CannotLoad
from easyml_server.serving.repository import ModelRepository

SERVING = health_pb2.HealthCheckResponse.SERVING
GONE = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

log = structlog.get_logger(__name__)


class Exchange:
    """Exchanges models, and tells the health of each under all its names."""

    def __init__(self, models: ModelRepository, health: health_aio.HealthServicer, metrics: ServingMetrics) -> None:
        self._models = models
        self._health = health
        self._metrics = metrics

    async def whenever(self, asked: asyncio.Event, file: Path) -> None:
        """Read the file whenever it is asked for, until cancelled."""
        while True:
            await asked.wait()
            asked.clear()
            await self.read(file)

    async def read(self, file: Path) -> None:
        """Serve what the file says; where that cannot be, go on as before, and log why."""
        before = self._models.known
        try:
            await self._models.exchange(await asyncio.to_thread(read_models_file, file))
        except (CannotStart, CannotLoad) as error:
            log.warning("models_kept", reason=str(error))
            self._metrics.exchanged(accepted=False)
            return
        except Exception:  # whatever is in the way now must not be in the way of the next file
            log.exception("models_kept")
            self._metrics.exchanged(accepted=False)
            return
        known = self._models.known
        for name in before.all_names.keys() - known.all_names.keys():
            await self._health.set(name, GONE)
        await self.announce(known.all_names)
        self._metrics.exchanged(accepted=True)
        log.info("models_exchanged", names=known.names, model_version_ids=sorted(known.sources))

    async def announce(self, names: Iterable[str]) -> None:
        """These are served."""
        for name in names:
            await self._health.set(name, SERVING)
