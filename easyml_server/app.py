"""The composition root: settings in, running server out. The only place where things are joined."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from uuid import uuid4

import structlog

from easyml_server.artifacts.local import LocalArtifacts
from easyml_server.data_folder import DataFolder, StartError, open_data_folder
from easyml_server.database import open_store
from easyml_server.deployers.local import ModelServerLimits, start_model_servers
from easyml_server.documents import open_documents
from easyml_server.domain.users import Caller, Scope, User
from easyml_server.ports.documents import DocumentServer
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.security.passwords import Argon2Hasher
from easyml_server.security.tokens import Ed25519Signer, new_secret, secret_hash, write_private
from easyml_server.services.auth import AuthService, Secrets
from easyml_server.services.datasets import DatasetService
from easyml_server.services.dispatcher import TrainingDispatcher
from easyml_server.services.documents import DocumentDispatcher
from easyml_server.services.events import EventHub
from easyml_server.services.models import ModelService
from easyml_server.services.predictions import PredictionService
from easyml_server.services.projects import ProjectService
from easyml_server.services.recorder import RunRecorder
from easyml_server.services.requests import REMEMBERED
from easyml_server.services.trainings import TrainingService
from easyml_server.services.uploads import UploadService
from easyml_server.settings import Settings
from easyml_server.tracking.process import start_tracker
from easyml_server.trainers.converter import ConverterLimits, start_table_reader
from easyml_server.trainers.local import TrainingLimits, start_local_trainer
from easyml_server.transport.server import Server, Services, TransportLimits

OWNER_EMAIL = "owner@localhost"
HOUSEKEEPING_SECONDS = 600.0
OUTBOX_GRACE_SECONDS = 2.0

log = structlog.get_logger(__name__)


def now() -> datetime:
    """The clock of this server."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers."""

    address: str
    folder: DataFolder
    stopped: asyncio.Event


@asynccontextmanager
async def run_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Start everything in order, and stop it in reverse; StartError says in one line why it cannot start."""
    check_exposure(settings)
    limits = settings.limits()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(open_data_folder(settings.data_dir))
        store = await stack.enter_async_context(open_store(settings, folder))
        documents = await stack.enter_async_context(open_documents(settings, store))
        document_dispatcher = None if documents is None else keep_documents_on(documents, store)
        artifacts = LocalArtifacts(folder.root, settings.min_free_disk_bytes)
        artifacts.empty_work()
        signer = Ed25519Signer(folder.keys)
        tables = await stack.enter_async_context(
            start_table_reader(
                settings.converters,
                ConverterLimits(
                    settings.converter_memory_bytes, settings.converter_seconds, settings.converter_file_bytes
                ),
                artifacts.work,
            )
        )
        trainer = await stack.enter_async_context(
            start_local_trainer(
                settings.workers, limits=TrainingLimits(settings.events_per_second, settings.events_per_run)
            )
        )
        tracker = await stack.enter_async_context(start_tracker(folder.mlflow, artifacts.work))
        model_servers = await stack.enter_async_context(
            start_model_servers(
                signer,
                signer.jwks_path,
                kept_warm=settings.model_servers,
                limits=model_server_limits(settings),
                clock=now,
            )
        )
        hub = EventHub()
        recorder = RunRecorder(store, artifacts, tracker, now)
        dispatcher = TrainingDispatcher(store, artifacts, trainer, hub, limits, now, recorder.wake)
        auth = AuthService(
            store,
            Argon2Hasher(settings.password_hashes),
            signer,
            Secrets(new_secret, secret_hash),
            limits,
            now,
            open_registration=settings.open_registration,
        )
        uploads = UploadService(store, artifacts, tables, limits, now)
        models = ModelService(store, artifacts, tracker, model_servers, now)
        services = Services(
            auth=auth,
            projects=ProjectService(store, artifacts, limits, now),
            datasets=DatasetService(store, artifacts, tables, now),
            uploads=uploads,
            trainings=TrainingService(store, auth, hub, dispatcher, limits, now),
            models=models,
            predictions=PredictionService(store, models, artifacts, model_servers),
        )
        if settings.loopback:
            await ensure_local_owner(store, auth, folder)
        await dispatcher.recover()
        await remove_orphans(store, artifacts, folder)
        server = Server(services, limits, transport_limits(settings), now)
        address = listen(server, settings)
        await server.start()
        background = [
            asyncio.create_task(dispatcher.run(), name="dispatcher"),
            asyncio.create_task(recorder.run(), name="recorder"),
            asyncio.create_task(housekeeping(uploads, store), name="housekeeping"),
        ]
        if documents is not None and document_dispatcher is not None:
            background += [
                asyncio.create_task(document_dispatcher.run(), name="documents"),
                asyncio.create_task(report_documents(server, documents), name="health of documents"),
            ]
        folder.announce(address)
        running = RunningServer(address, folder, asyncio.Event())
        try:
            yield running
        finally:
            await drain(settings, server, hub, uploads, dispatcher, background)
            await work_off(recorder, document_dispatcher)


def keep_documents_on(documents: DocumentServer, store: SqlStore) -> DocumentDispatcher:
    """The store writes documents to the outbox from now on; who works that off."""
    dispatcher = DocumentDispatcher(store, documents)
    store.keep_documents_on(documents, dispatcher.wake)
    return dispatcher


async def report_documents(server: Server, documents: DocumentServer) -> None:
    """Keep the health of documents up to date."""
    async for available in documents.availability():
        await server.report_documents(available=available)


def check_exposure(settings: Settings) -> None:
    """Plaintext only where no other machine can listen, unless somebody said so."""
    if not settings.loopback and not settings.allow_plaintext:
        raise StartError(
            f"{settings.host} can be reached by other machines, and without TLS they can read everything; listen on "
            "127.0.0.1, or set EASYML_ALLOW_PLAINTEXT=true where something else encrypts."
        )


def listen(server: Server, settings: Settings) -> str:
    """Take the port; the address as clients write it."""
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    try:
        port = server.listen(f"{host}:{settings.port}")
    except OSError as error:
        raise StartError(
            f"Port {settings.port} on {settings.host} is taken or not allowed; choose another with --port (0: any)."
        ) from error
    return f"{host}:{port}"


async def ensure_local_owner(store: SqlStore, auth: AuthService, folder: DataFolder) -> None:
    """On a loopback address the first start makes an owner, whose key lies in the data folder for clients here."""
    if folder.owner_key.exists():
        with suppress(Exception):
            await auth.identify(folder.owner_key.read_text().strip())
            return
    async with store.begin() as work:
        owner = await work.users.find_by_email(OWNER_EMAIL)
        if owner is None:
            time = now()
            owner = User(uuid4(), OWNER_EMAIL, "Local owner", True, None, time, time)
            await work.users.add(owner)
            await work.commit()
    _, secret = await auth.create_api_key(Caller(owner.id, administrator=True), "owner.key", Scope(), None)
    write_private(folder.owner_key, f"{secret}\n".encode())


async def remove_orphans(store: SqlStore, artifacts: LocalArtifacts, folder: DataFolder) -> None:
    """Remove files that a crash left without a row: they were published, but never acknowledged."""
    async with store.read() as work:
        known = await work.known_file_ids()
        unfinished = await work.datasets.unfinished_uploads()
    continued = {artifacts.upload_path(upload.user_id, upload.id) for upload in unfinished}
    orphans = [path for path in artifacts.version_folders() if path.name not in known]
    orphans += [path for path in artifacts.upload_files() if path not in continued]
    for path in orphans:
        await artifacts.remove(path)
        log.info("orphan_removed", path=str(path.relative_to(folder.root)))


def transport_limits(settings: Settings) -> TransportLimits:
    """The settings that limit calls."""
    return TransportLimits(**{field.name: getattr(settings, field.name) for field in fields(TransportLimits)})


def model_server_limits(settings: Settings) -> ModelServerLimits:
    """The settings that model servers keep to as well."""
    return ModelServerLimits(**{field.name: getattr(settings, field.name) for field in fields(ModelServerLimits)})


async def housekeeping(uploads: UploadService, store: SqlStore) -> None:
    """Now and then forget what nobody continued."""
    while True:
        with suppress(Exception):
            await uploads.forget_expired()
            async with store.begin() as work:
                await work.requests.forget(now() - REMEMBERED)
                await work.commit()
        await asyncio.sleep(HOUSEKEEPING_SECONDS)


async def drain(
    settings: Settings,
    server: Server,
    hub: EventHub,
    uploads: UploadService,
    dispatcher: TrainingDispatcher,
    background: list[asyncio.Task[None]],
) -> None:
    """Stop claiming, go not ready, end streams with a way back, finish calls, put trainings back, then close."""
    await server.go_not_ready()
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await asyncio.sleep(settings.drain_delay_seconds)
    hub.drain()
    uploads.drain()
    await server.finish_calls(settings.drain_grace_seconds)
    await dispatcher.stop()
    await server.stop()


async def work_off(recorder: RunRecorder, documents: DocumentDispatcher | None) -> None:
    """Do what of the outboxes can be done soon; the rest is for the next server."""
    outboxes = [recorder.work_off()] if documents is None else [documents.work_off(), recorder.work_off()]
    with suppress(TimeoutError):
        async with asyncio.timeout(OUTBOX_GRACE_SECONDS):
            # What fails stays in its outbox.
            await asyncio.gather(*outboxes, return_exceptions=True)


async def serve(settings: Settings, ready: Callable[[RunningServer], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends everything at once."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            # Not by an exception, which would drain first; children end with their server, recovery does the rest.
            os._exit(1)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with run_server(settings) as running:
        ready(running)
        await stopping.wait()
        log.info("draining")
