"""The grpc.aio server: options, services, health, reflection, start and drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from easyml.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    project_service_pb2,
    project_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)
from easyml_server.domain.limits import Limits
from easyml_server.services.auth import AuthService
from easyml_server.services.datasets import DatasetService
from easyml_server.services.deployment_changes import DeploymentChanges
from easyml_server.services.deployment_configs import DeploymentConfigService
from easyml_server.services.deployment_logs import DeploymentLogs
from easyml_server.services.deployment_manifests import DeploymentManifests
from easyml_server.services.deployment_metrics import DeploymentMetrics
from easyml_server.services.deployments import DeploymentService
from easyml_server.services.inference import InferenceService
from easyml_server.services.models import ModelService
from easyml_server.services.predictions import PredictionService
from easyml_server.services.projects import ProjectService
from easyml_server.services.trainings import TrainingService
from easyml_server.services.uploads import UploadService
from easyml_server.services.versions import VersionService
from easyml_server.transport.admission import Admission, ClassLimit
from easyml_server.transport.methods import CallClass, methods_of
from easyml_server.transport.pipeline import MessageLimits, Pipeline
from easyml_server.transport.replay import SecretReplay
from easyml_server.transport.servicers.auth import AuthServicer
from easyml_server.transport.servicers.datasets import DatasetServicer
from easyml_server.transport.servicers.deployments import DeploymentServicer
from easyml_server.transport.servicers.inference import InferenceServicer
from easyml_server.transport.servicers.models import ModelServicer
from easyml_server.transport.servicers.predictions import PredictionServicer
from easyml_server.transport.servicers.projects import ProjectServicer
from easyml_server.transport.servicers.trainings import TrainingServicer
from easyml_server.transport.validation import Validator
from inference import open_inference_grpc_pb2

CONTRACT = (
    auth_service_pb2,
    project_service_pb2,
    dataset_service_pb2,
    training_service_pb2,
    model_service_pb2,
    deployment_service_pb2,
    prediction_service_pb2,
)
SERVED = (*CONTRACT, open_inference_grpc_pb2)
LIVENESS = "liveness"
READINESS = ""
DOCUMENTS = "documents"
"""What needs the document server; the rest serves on while it is away."""
FILES = "files"
"""What needs the object store; the rest serves on while it is away."""
TRACKING = "tracking"
"""What records runs for MLflow; the rest serves on while they wait."""
TRAININGS = "trainings"
"""What trains; while it is away, trainings wait in the queue."""
PARTS = (DOCUMENTS, FILES, TRACKING, TRAININGS)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STREAM_LIMIT = 1_000
"""gRPC's own limit of streams a connection: it refuses and does not queue, so it is a wall only."""
PING_TIMEOUT_MS = 20_000
METADATA_ROOM = 2
"""gRPC counts 32 bytes more for each entry, and its own entries."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """All use cases."""

    auth: AuthService
    projects: ProjectService
    datasets: DatasetService
    uploads: UploadService
    trainings: TrainingService
    models: ModelService
    deployments: DeploymentService
    deployment_configs: DeploymentConfigService
    deployment_metrics: DeploymentMetrics
    deployment_changes: DeploymentChanges
    deployment_logs: DeploymentLogs
    deployment_manifests: DeploymentManifests
    predictions: PredictionService
    inference: InferenceService
    versions: VersionService


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Limits of calls; each value's setting is EASYML_ and its name in capitals."""

    max_message_bytes: int
    max_control_bytes: int
    max_chunk_bytes: int
    max_metadata_bytes: int
    max_in_flight: int
    max_in_flight_per_user: int
    max_predictions: int
    max_streams: int
    max_streams_per_user: int
    max_uploads: int
    max_uploads_per_user: int
    admission_wait_ms: int
    default_deadline_seconds: float
    handshake_seconds: float
    connection_idle_seconds: float
    connection_age_seconds: float
    min_ping_seconds: float


class Server:
    """A server that can start, report its health, and drain."""

    def __init__(self, services: Services, limits: Limits, transport: TransportLimits, clock: Callable[[], datetime]):
        methods = methods_of(module.DESCRIPTOR for module in SERVED)
        self._validator = Validator()
        self._requests = [method.request for method in methods.values() if not method.raw]
        self._admission = _admission(transport)
        pipeline = Pipeline(
            methods,
            services.auth.identify,
            self._admission,
            self._validator,
            MessageLimits(
                transport.max_control_bytes,
                transport.max_message_bytes,
                transport.max_chunk_bytes,
                transport.max_metadata_bytes,
            ),
            transport.default_deadline_seconds,
        )
        self._server = grpc.aio.server(interceptors=[pipeline], options=_options(transport))
        self._health = health_aio.HealthServicer()
        self._ready = False
        self._names = _add_services(self._server, services, self._validator, limits, clock, lambda: self._ready)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [*self._names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME],
            self._server,
        )

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Take a port, encrypted where there are credentials; OSError if it is taken."""
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"{address} cannot be listened on") from error
        if port == 0:
            raise OSError(f"{address} cannot be listened on")
        return port

    async def start(self) -> None:
        """Compile the rules of the contract and serve."""
        self._validator.warm(self._requests)
        await self._health.set(LIVENESS, SERVING)
        await self._server.start()
        for name in (*self._names, READINESS, *PARTS):
            await self._health.set(name, SERVING)
        self._ready = True

    async def report(self, part: str, *, available: bool) -> None:
        """Whether what needs a part is served."""
        await self._health.set(part, SERVING if available else NOT_SERVING)

    async def go_not_ready(self) -> None:
        """Tell balancers to send no more calls."""
        self._ready = False
        await self._health.enter_graceful_shutdown()

    async def finish_calls(self, grace_seconds: float) -> None:
        """Wait for calls in flight, at most this long."""
        try:
            async with asyncio.timeout(grace_seconds):
                await self._admission.idle()
        except TimeoutError:
            log.warning("calls_cut_off", calls=self._admission.busy)

    async def stop(self) -> None:
        """End whatever is left, at once."""
        await self._server.stop(0)


def _admission(limits: TransportLimits) -> Admission:
    per_class: Mapping[CallClass, ClassLimit] = {
        CallClass.UNARY: ClassLimit(limits.max_in_flight, limits.max_in_flight_per_user, "EASYML_MAX_IN_FLIGHT"),
        CallClass.PREDICTION: ClassLimit(limits.max_predictions, limits.max_predictions, "EASYML_MAX_PREDICTIONS"),
        CallClass.STREAM: ClassLimit(limits.max_streams, limits.max_streams_per_user, "EASYML_MAX_STREAMS"),
        CallClass.UPLOAD: ClassLimit(limits.max_uploads, limits.max_uploads_per_user, "EASYML_MAX_UPLOADS"),
    }
    return Admission(dict(per_class), limits.admission_wait_ms / 1000)


def _add_services(
    server: grpc.aio.Server,
    services: Services,
    validator: Validator,
    limits: Limits,
    clock: Callable[[], datetime],
    is_ready: Callable[[], bool],
) -> Sequence[str]:
    auth_service_pb2_grpc.add_AuthServiceServicer_to_server(
        AuthServicer(services.auth, services.deployments, SecretReplay()), server
    )
    project_service_pb2_grpc.add_ProjectServiceServicer_to_server(ProjectServicer(services.projects), server)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(
        DatasetServicer(services.datasets, services.uploads, services.versions, limits, clock), server
    )
    training_service_pb2_grpc.add_TrainingServiceServicer_to_server(TrainingServicer(services.trainings), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(services.models, services.versions), server)
    deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server(
        DeploymentServicer(
            services.deployments,
            services.deployment_configs,
            services.deployment_changes,
            services.deployment_metrics,
            services.deployment_logs,
            services.deployment_manifests,
            validator,
        ),
        server,
    )
    server.add_generic_rpc_handlers((PredictionServicer(services.predictions, validator).handler(),))
    inference = InferenceServicer(services.inference, services.predictions, is_ready)
    server.add_generic_rpc_handlers((inference.handler(),))
    return [service.full_name for module in SERVED for service in module.DESCRIPTOR.services_by_name.values()]


def _options(limits: TransportLimits) -> Sequence[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max(limits.max_message_bytes, limits.max_chunk_bytes) + 64 * 1024),
        # Above this gRPC refuses by chance, up to the absolute one; the pipeline's own check is to decide before.
        ("grpc.max_metadata_size", METADATA_ROOM * limits.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * METADATA_ROOM * limits.max_metadata_bytes),
        ("grpc.max_concurrent_streams", STREAM_LIMIT),
        # Else a second server gets the same port without an error.
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_seconds * 1000)),
        ("grpc.max_connection_idle_ms", int(limits.connection_idle_seconds * 1000)),
        ("grpc.max_connection_age_ms", int(limits.connection_age_seconds * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(limits.min_ping_seconds * 1000)),
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
