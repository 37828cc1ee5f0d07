"""The composition root: settings in, running server out. The only place where things are joined."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

import structlog

from easyml_server.cluster import open_trainer
from easyml_server.data_folder import DataFolder, StartError, open_data_folder
from easyml_server.database import open_signals, open_store
from easyml_server.deployers.identities import Identities
from easyml_server.deployers.local import start_model_servers
from easyml_server.deploying import Deployments, model_server_limits, open_deployments
from easyml_server.documents import open_documents
from easyml_server.domain.errors import AlreadyExists
from easyml_server.domain.leases import Lease
from easyml_server.domain.users import Caller, Scope, User
from easyml_server.exposure import check_exposure, open_certificates, proof
from easyml_server.files import Artifacts, open_files
from easyml_server.leftovers import remove_left_behind
from easyml_server.memory import return_large_blocks
from easyml_server.ports.artifacts import ArtifactStore
from easyml_server.ports.documents import DocumentServer
from easyml_server.ports.signals import Alone, Topic
from easyml_server.ports.tracker import Tracker
from easyml_server.ports.versioner import Versioner
from easyml_server.recording import tracking_server
from easyml_server.repositories.sql.store import SqlStore
from easyml_server.security.passwords import Argon2Hasher
from easyml_server.security.tokens import Ed25519Signer, WrongKeyError, new_secret, secret_hash, write_private
from easyml_server.services.auth import COUNTED, AuthService, Secrets
from easyml_server.services.datasets import DatasetService
from easyml_server.services.dispatcher import TrainingDispatcher
from easyml_server.services.documents import DocumentDispatcher
from easyml_server.services.events import EventHub
from easyml_server.services.following import Follower
from easyml_server.services.inference import InferenceService
from easyml_server.services.mirroring import Mirroring, ModelMirror
from easyml_server.services.models import ModelService
from easyml_server.services.outbox import OutboxWorker
from easyml_server.services.predictions import PredictionService
from easyml_server.services.projects import ProjectService
from easyml_server.services.recorder import RunRecorder
from easyml_server.services.requests import REMEMBERED
from easyml_server.services.trainings import TrainingService
from easyml_server.services.uploads import UploadService
from easyml_server.services.versions import VersionRecorder, VersionService, follow_remote
from easyml_server.settings import Settings
from easyml_server.tracking.process import start_tracker
from easyml_server.trainers.converter import ConverterLimits, start_table_reader
from easyml_server.transport.server import DOCUMENTS, FILES, TRACKING, TRAININGS, Server, Services, TransportLimits
from easyml_server.transport.tls import Certificates
from easyml_server.versioning.process import start_versioner

if TYPE_CHECKING:
    from easyml_server.repositories.sql.signals import PostgresSignals

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
    certificates: Certificates | None
    folder: DataFolder
    interrupted: asyncio.Event
    """Set when its deployments are to end with it."""


@asynccontextmanager
async def run_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Start everything in order, and stop it in reverse; StartError says in one line why it cannot start."""
    check_exposure(settings)
    certificates = open_certificates(settings, now)
    limits = settings.limits()
    signals = open_signals(settings)
    interrupted = asyncio.Event()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(open_data_folder(settings.data_dir))
        store = await stack.enter_async_context(open_store(settings, folder))
        documents = await stack.enter_async_context(open_documents(settings, store))
        document_dispatcher = None if documents is None else keep_documents_on(documents, store)
        files = await stack.enter_async_context(open_files(settings, folder))
        signer = open_signer(settings, folder)
        tables = await stack.enter_async_context(
            start_table_reader(
                settings.converters,
                ConverterLimits(
                    settings.converter_memory_bytes, settings.converter_seconds, settings.converter_file_bytes
                ),
                files.artifacts.work,
                warm=settings.preload,
            )
        )
        trainer = await stack.enter_async_context(open_trainer(settings))
        tracker = await stack.enter_async_context(
            start_tracker(files.root / "mlflow", files.artifacts.work, tracking_server(settings))
        )
        model_servers = await stack.enter_async_context(
            start_model_servers(
                Identities(signer, now),
                signer.jwks_path,
                kept_warm=settings.model_servers,
                limits=model_server_limits(settings),
            )
        )
        versioner = await stack.enter_async_context(
            start_versioner(
                files.root / "dvc",
                files.root / "dvc-remote",
                files.artifacts.work,
                settings.dvc_remote or files.dvc_remote,
                whole=files.objects is None,
            )
        )
        hub = EventHub(signals)
        mirroring = Mirroring(now, wanted=settings.mlflow_register_models)
        recording, _ = outbox = outbox_workers(store, files.artifacts, tracker, versioner, mirroring)
        lease = Lease(uuid4(), settings.lease_seconds)
        dispatcher = TrainingDispatcher(
            store, files.artifacts, trainer, hub, limits, now, waking(outbox), lease, signals
        )
        auth = AuthService(
            store,
            Argon2Hasher(settings.password_hashes),
            signer,
            Secrets(new_secret, secret_hash),
            limits,
            now,
            open_registration=settings.open_registration,
            signals=signals,
        )
        deployments = await stack.enter_async_context(
            open_deployments(
                settings, folder, store, files.artifacts, auth, signer, mirroring, now, interrupted, lease, signals
            )
        )
        uploads = UploadService(store, files.artifacts, tables, limits, now)
        models = ModelService(store, files.artifacts, tracker, model_servers, mirroring, now)
        services = Services(
            auth=auth,
            projects=ProjectService(store, files.artifacts, mirroring, limits, now),
            datasets=DatasetService(store, files.artifacts, tables, now),
            uploads=uploads,
            trainings=TrainingService(store, auth, hub, dispatcher, limits, now, signals),
            models=models,
            deployments=deployments.service,
            deployment_configs=deployments.configs,
            deployment_metrics=deployments.metrics,
            deployment_changes=deployments.changes,
            deployment_logs=deployments.logs,
            deployment_manifests=deployments.manifests,
            predictions=PredictionService(
                store, models, files.artifacts, model_servers, deployments.calls, deployments.reaches
            ),
            inference=InferenceService(store),
            versions=VersionService(store),
        )
        if settings.loopback:
            await ensure_local_owner(store, auth, folder)
        await follow_remote(store, versioner, now())
        await recover(settings, dispatcher, outbox)
        await remove_left_behind(store, files.artifacts)
        server = Server(services, limits, transport_limits(settings), now)
        address = listen(server, settings, certificates)
        await server.start()
        background = [
            asyncio.create_task(dispatcher.run(), name="dispatcher"),
            *bringing_about(deployments, address),
            *(asyncio.create_task(worker.run(), name="outbox") for worker in outbox),
            asyncio.create_task(housekeeping(uploads, store, files.artifacts), name="housekeeping"),
            *(
                asyncio.create_task(report(server, name, part), name=f"health of {name}")
                for name, part in parts(documents, files.objects, recording, trainer).items()
                if part is not None
            ),
        ]
        to_the_end = [
            asyncio.create_task(dispatcher.keep_leases(), name="leases"),
            *listening(signals, dispatcher, Follower(store, hub), auth, deployments),
        ]
        if documents is not None and document_dispatcher is not None:
            background.append(asyncio.create_task(document_dispatcher.run(), name="documents"))
        background += looking_after(certificates)
        folder.announce(address, proof(settings, certificates))
        try:
            yield RunningServer(address, certificates, folder, interrupted)
        finally:
            await drain(settings, server, [hub, uploads, deployments.watch], dispatcher, background)
            await work_off([*outbox, *([] if document_dispatcher is None else [document_dispatcher])])
            await ended(to_the_end)


def outbox_workers(
    store: SqlStore, artifacts: ArtifactStore, tracker: Tracker, versioner: Versioner, mirroring: Mirroring
) -> tuple[OutboxWorker, OutboxWorker]:
    """One for each part that may be away while the others are there: MLflow, and DVC."""
    recorder, mirror = RunRecorder(store, artifacts, tracker, mirroring, now), ModelMirror(store, tracker)
    versions = VersionRecorder(store, artifacts, versioner, now)
    return (
        OutboxWorker(store, {**recorder.handlers, **mirror.handlers}, now),
        OutboxWorker(store, versions.handlers, now),
    )


async def recover(settings: Settings, dispatcher: TrainingDispatcher, outbox: Sequence[OutboxWorker]) -> None:
    """At the start of the only server: whoever was at work on anything lives no more."""
    if settings.database_url is not None:
        return
    await dispatcher.recover()
    for worker in outbox:
        await worker.recover()


def waking(outbox: Sequence[OutboxWorker]) -> Callable[[], None]:
    """Tells them that an intent was committed."""

    def wake() -> None:
        for worker in outbox:
            worker.wake()

    return wake


def keep_documents_on(documents: DocumentServer, store: SqlStore) -> DocumentDispatcher:
    """The store writes documents to the outbox from now on; who works that off."""
    dispatcher = DocumentDispatcher(store, documents)
    store.keep_documents_on(documents, dispatcher.wake)
    return dispatcher


class Watched(Protocol):
    """A part that may be away while the server is there."""

    def availability(self) -> AsyncIterator[bool]:
        """Whether it answers, now and then."""
        ...


def parts(
    documents: Watched | None, objects: Watched | None, recording: Watched, trainer: Watched
) -> Mapping[str, Watched | None]:
    """Those that the health service names; None for what lies in the data folder."""
    return {DOCUMENTS: documents, FILES: objects, TRACKING: recording, TRAININGS: trainer}


async def report(server: Server, name: str, part: Watched) -> None:
    """Keep the health of a part up to date."""
    async for available in part.availability():
        await server.report(name, available=available)


def open_signer(settings: Settings, folder: DataFolder) -> Ed25519Signer:
    """With the key that servers share, or one of this server's own."""
    try:
        return Ed25519Signer(folder.keys, settings.signing_key_file)
    except WrongKeyError as error:
        raise StartError(
            f"{error} EASYML_SIGNING_KEY_FILE names one made by: openssl genpkey -algorithm ed25519"
        ) from error


def listen(server: Server, settings: Settings, certificates: Certificates | None) -> str:
    """Take the port; the address as clients write it."""
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    try:
        credentials = None if certificates is None else certificates.credentials()
        port = server.listen(f"{host}:{settings.port}", credentials)
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
    time = now()
    # Of servers that start together on a new database one makes the owner, whose id all of them get a key for.
    with suppress(AlreadyExists):
        async with store.begin() as work:
            if await work.users.find_by_email(OWNER_EMAIL) is None:
                await work.users.add(User(uuid4(), OWNER_EMAIL, "Local owner", True, None, time, time))
                await work.commit()
    async with store.read() as work:
        owner = await work.users.find_by_email(OWNER_EMAIL)
    if owner is None:
        raise StartError("The local owner was removed while this server started; start it again.")
    _, secret = await auth.create_api_key(Caller(owner.id, administrator=True), "owner.key", Scope(), None)
    write_private(folder.owner_key, f"{secret}\n".encode())


def transport_limits(settings: Settings) -> TransportLimits:
    """The settings that limit calls."""
    return TransportLimits(**{field.name: getattr(settings, field.name) for field in fields(TransportLimits)})


async def housekeeping(uploads: UploadService, store: SqlStore, artifacts: Artifacts) -> None:
    """Now and then forget what nobody continued."""
    while True:
        with suppress(Exception):
            # First, since it is for the time that the database is away.
            await artifacts.keep_published()
            await uploads.forget_expired()
            async with store.begin() as work:
                await work.requests.forget(now() - REMEMBERED)
                await work.attempts.forget(now() - COUNTED)
                await work.commit()
            await remove_left_behind(store, artifacts)
        await asyncio.sleep(HOUSEKEEPING_SECONDS)


def listening(
    signals: PostgresSignals | Alone,
    dispatcher: TrainingDispatcher,
    follower: Follower,
    auth: AuthService,
    deployments: Deployments,
) -> list[asyncio.Task[None]]:
    """What it takes to hear other servers, where there may be others."""
    if isinstance(signals, Alone):
        return []

    def receive(topic: Topic, subject_id: UUID) -> None:
        match topic:
            case Topic.EVENTS:
                follower.tell(subject_id)
            case Topic.QUEUE:
                dispatcher.wake()
            case Topic.CANCEL:
                dispatcher.cancel(subject_id)
            case Topic.ACCESS:
                auth.forget()
            case Topic.DEPLOYMENT:
                deployments.hear(subject_id)

    def missed() -> None:
        follower.look_again()
        dispatcher.look_again()
        deployments.look_again()
        auth.forget()

    return [
        asyncio.create_task(signals.run(receive, missed), name="signals"),
        asyncio.create_task(follower.run(), name="follower"),
    ]


def bringing_about(deployments: Deployments, address: str) -> list[asyncio.Task[None]]:
    """Carries out deployments, of several servers each those that it holds."""
    tasks = [
        asyncio.create_task(deployments.reconciler.run(), name="reconciler"),
        asyncio.create_task(deployments.autoscaler.run(deployments.reconciler.wake), name="autoscaler"),
        asyncio.create_task(deployments.metrics.run(deployments.reconciler.judge), name="metrics of deployments"),
    ]
    if deployments.leased is not None:
        deployments.leased.address = address
        keeping = deployments.leased.keep(deployments.reconciler.wake)
        tasks.append(asyncio.create_task(keeping, name="leases of deployments"))
    return tasks


def looking_after(certificates: Certificates | None) -> list[asyncio.Task[None]]:
    """Exchanges certificates that were renewed."""
    if certificates is None:
        return []
    certificates.remind()
    return [asyncio.create_task(certificates.keep_looking(), name="certificates")]


async def ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Drained(Protocol):
    """Has streams that would not end by themselves."""

    def drain(self) -> None:
        """End them with a way back."""
        ...


async def drain(
    settings: Settings,
    server: Server,
    streams: Sequence[Drained],
    dispatcher: TrainingDispatcher,
    background: list[asyncio.Task[None]],
) -> None:
    """Stop claiming, go not ready, end streams with a way back, finish calls, put trainings back, then close."""
    await server.go_not_ready()
    await ended(background)
    await asyncio.sleep(settings.drain_delay_seconds)
    for stream in streams:
        stream.drain()
    await server.finish_calls(settings.drain_grace_seconds)
    await dispatcher.stop()
    await server.stop()


async def work_off(outboxes: Sequence[OutboxWorker | DocumentDispatcher]) -> None:
    """Do what of the outboxes can be done soon; the rest is for the next server."""
    with suppress(TimeoutError):
        async with asyncio.timeout(OUTBOX_GRACE_SECONDS):
            # What fails stays in its outbox.
            await asyncio.gather(*(outbox.work_off() for outbox in outboxes), return_exceptions=True)


async def serve(settings: Settings, ready: Callable[[RunningServer], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends everything at once."""
    return_large_blocks()
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    interrupted = False

    def stop(number: int) -> None:
        nonlocal interrupted
        if stopping.is_set():
            # Not by an exception, which would drain first; children end with their server, recovery does the rest.
            os._exit(1)
        interrupted = number == signal.SIGINT
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    async with run_server(settings) as running:
        ready(running)
        await stopping.wait()
        if interrupted:
            running.interrupted.set()
        log.info("draining")
