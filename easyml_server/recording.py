"""Which MLflow the settings name, and whether it answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

from easyml_server.data_folder import StartError
from easyml_server.domain.errors import EasyMLError
from easyml_server.settings import Settings
from easyml_server.tracking.process import start_tracker
from easyml_server.tracking.server import TrackingServer, WrongUriError


def tracking_server(settings: Settings) -> TrackingServer | None:
    """The tracking server; None for MLflow in the data folder. StartError if the setting names none that could be."""
    if settings.mlflow_tracking_uri is None:
        return None
    try:
        return TrackingServer.of(settings.mlflow_tracking_uri.get_secret_value())
    except WrongUriError as error:
        raise StartError(str(error)) from error


async def look_at_tracking(server: TrackingServer) -> str:
    """What there is to say of a tracking server; StartError says what is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        async with start_tracker(Path(scratch), Path(scratch), server) as tracker:
            try:
                return await tracker.look()
            except EasyMLError as error:
                raise StartError(error.message) from error
