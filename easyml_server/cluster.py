"""Where trainings run: in processes of this machine, or on the Dask cluster that the settings name.

Dask is imported only where it is used: most servers do without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from easyml_server.data_folder import StartError
from easyml_server.file_owners import NAME
from easyml_server.files import EXAMPLE, WORK_MARKER, files_root, object_url
from easyml_server.ports.trainer import Trainer
from easyml_server.settings import Settings, is_loopback
from easyml_server.trainers.local import TrainingLimits, start_local_trainer

if TYPE_CHECKING:
    from easyml_server.trainers.dask.session import SharedFolder

MARKER = NAME
"""The file that says whose files these are: no other folder has the same."""
SCHEMES = ("tcp", "tls")


@asynccontextmanager
async def open_trainer(settings: Settings) -> AsyncIterator[Trainer]:
    """The trainer of the settings. A cluster that is away is no reason not to start: trainings wait for it."""
    limits = TrainingLimits(settings.events_per_second, settings.events_per_run)
    if settings.dask_address is None:
        async with start_local_trainer(settings.workers, limits=limits, warm=settings.preload) as local:
            yield local
        return
    check_dask(settings)
    from easyml_server.trainers.dask.session import Work
    from easyml_server.trainers.dask.trainer import start_dask_trainer

    async with start_dask_trainer(settings.dask_address, _shared_folder(settings), Work(limits)) as trainer:
        yield trainer


def check_dask(settings: Settings) -> None:
    """StartError if the settings of the cluster cannot be right, whether it is there or not."""
    address = settings.dask_address or ""
    try:
        parts = urlsplit(address)
        complete = parts.scheme in SCHEMES and parts.hostname and parts.port and not (parts.path or parts.query)
    except ValueError:
        complete = False
    if not complete or "@" in address:
        raise StartError(
            "EASYML_DASK_ADDRESS is no address of a Dask scheduler; write tcp://host:8786 or tls://host:8786."
        )
    if parts.scheme == "tcp" and not is_loopback(parts.hostname or "") and not settings.allow_plaintext:
        raise StartError(
            f"Trainings on {address} would cross the network in plaintext, and whoever reaches its scheduler can run "
            "code there; use tls:// (distributed.comm.tls of Dask's configuration), or set EASYML_ALLOW_PLAINTEXT=true "
            "where something else encrypts."
        )
    if settings.artifact_url is None:
        raise StartError(
            "EASYML_DASK_ADDRESS needs a folder in EASYML_ARTIFACT_URL: the workers read and write the files "
            f"themselves, and see them at the same path as the server, such as {EXAMPLE}. Where it names a bucket they "
            "see the server's data folder."
        )
    if find_spec("distributed") is None:
        raise StartError(
            "EASYML_DASK_ADDRESS needs Dask, which is not installed; run: pip install 'easyml-server[dask]'"
        )
    if parts.scheme == "tls":
        from easyml_server.trainers.dask.tls import missing_certificates

        if (wrong := missing_certificates()) is not None:
            raise StartError(f"EASYML_DASK_ADDRESS: {wrong}")


async def look_at_dask(settings: Settings, address: str) -> str:
    """What there is to say of the cluster; StartError says what is wrong."""
    check_dask(settings)
    from easyml_server.trainers.dask.session import Work
    from easyml_server.trainers.dask.tls import why_away
    from easyml_server.trainers.dask.trainer import connected

    folder = _shared_folder(settings)
    if not (folder.root / folder.marker).exists():
        raise StartError(f"{folder.root} holds no files yet; workers are looked at once it does. Start a server first.")
    try:
        async with connected(address, folder, Work(TrainingLimits())) as session:
            await session.look_around(patiently=True)
            slots, workers, refused = session.slots, len(session.fit), session.refused
    except (OSError, TimeoutError) as error:
        raise StartError(
            f"{address} does not answer ({why_away(error)}); start a scheduler there (dask scheduler), or correct "
            "EASYML_DASK_ADDRESS. Trainings wait for it."
        ) from error
    if refused:
        raise StartError(" ".join(refused))
    if not workers:
        raise StartError(f"{address} has no workers; start some: dask worker {address} --nthreads 1")
    return f"{address}; workers: {workers}, trainings at once just now: {slots}."


def _shared_folder(settings: Settings) -> SharedFolder:
    from easyml_server.trainers.dask.session import SharedFolder

    data_dir = settings.data_dir.expanduser().absolute()
    if object_url(settings) is not None:
        # Its working folder, and its copies of what is in the store.
        return SharedFolder(data_dir, f"work/{WORK_MARKER}")
    return SharedFolder(files_root(settings, data_dir), MARKER)
