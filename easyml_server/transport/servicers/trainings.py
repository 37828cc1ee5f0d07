"""TrainingService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

from easyml.v1 import project_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml.v1 import training_service_pb2_grpc as pb_grpc
from easyml_server.domain.catalogue import ALGORITHMS
from easyml_server.domain.pages import Order
from easyml_server.ports.store import ExperimentFilter
from easyml_server.services.events import Heartbeat, StoredEvent
from easyml_server.services.trainings import TrainingService
from easyml_server.transport.calls import Context, caller, request_key
from easyml_server.transport.converters.enums import EXPERIMENT_ORDER, METRIC, PARTITION, TASK, TRAINING_STATE
from easyml_server.transport.converters.experiments import (
    algorithm_to_proto,
    comparison_to_proto,
    event_to_proto,
    experiment_to_proto,
    heartbeat_to_proto,
    plan_to_proto,
    to_requested,
)
from easyml_server.transport.converters.pages import by_time, fit, page_request, page_token, place
from easyml_server.transport.converters.projects import deleted_to_proto
from easyml_server.transport.converters.values import find_id


def _serialized(stored: StoredEvent) -> bytes:
    """An event on the wire, serialized once for all its watchers."""
    if stored.wire is None:
        stored.wire = pb.WatchTrainingResponse(event=event_to_proto(stored.event)).SerializeToString()
    return stored.wire


def _heartbeat(heartbeat: Heartbeat) -> bytes:
    return pb.WatchTrainingResponse(heartbeat=heartbeat_to_proto(heartbeat)).SerializeToString()


class TrainingServicer(pb_grpc.TrainingServiceServicer):
    """TrainingService on the wire."""

    def __init__(self, trainings: TrainingService) -> None:
        self._trainings = trainings

    async def ListAlgorithms(self, request: pb.ListAlgorithmsRequest, context: Context) -> pb.ListAlgorithmsResponse:
        page = page_request(request)
        task = TASK.find(request.task)
        found = [algorithm for algorithm in ALGORITHMS if task in (None, algorithm.task)]
        found.sort(key=lambda algorithm: (algorithm.task.value, algorithm.name))
        start = place(page)
        end = start + page.size
        return pb.ListAlgorithmsResponse(
            algorithms=[algorithm_to_proto(algorithm) for algorithm in found[start:end]],
            next_page_token=page_token(request, (str(end), "") if end < len(found) else None),
        )

    async def StartTraining(self, request: pb.StartTrainingRequest, context: Context) -> pb.StartTrainingResponse:
        experiment, plan = await self._trainings.start(
            caller(), request_key(request), to_requested(request), validate_only=request.validate_only
        )
        return pb.StartTrainingResponse(
            experiment=None if experiment is None else experiment_to_proto(experiment, full=True),
            plan=plan_to_proto(plan),
        )

    async def WatchTraining(  # type: ignore[override]  # events are serialized once for all their watchers
        self, request: pb.WatchTrainingRequest, context: Context
    ) -> AsyncIterator[bytes]:
        events = self._trainings.watch(caller(), UUID(request.experiment_id), request.after_sequence)
        async with aclosing(events):
            async for item in events:
                yield _heartbeat(item) if isinstance(item, Heartbeat) else _serialized(item)

    async def CancelTraining(self, request: pb.CancelTrainingRequest, context: Context) -> pb.CancelTrainingResponse:
        experiment = await self._trainings.cancel(caller(), UUID(request.experiment_id))
        return pb.CancelTrainingResponse(experiment=experiment_to_proto(experiment, full=True))

    async def GetExperiment(self, request: pb.GetExperimentRequest, context: Context) -> pb.GetExperimentResponse:
        experiment = await self._trainings.get(caller(), UUID(request.experiment_id))
        return pb.GetExperimentResponse(experiment=experiment_to_proto(experiment, full=True))

    async def ListExperiments(self, request: pb.ListExperimentsRequest, context: Context) -> pb.ListExperimentsResponse:
        only = ExperimentFilter(
            states=tuple(TRAINING_STATE.get(state) for state in request.states if state),
            dataset_id=find_id(request.dataset_id),
            algorithm=request.algorithm,
        )
        order = EXPERIMENT_ORDER.get(request.order_by, Order.NEWEST_FIRST)
        page = await self._trainings.list(caller(), UUID(request.project_id), page_request(request, order), only)
        full = request.view == project_pb2.RESOURCE_VIEW_FULL
        experiments, token = fit(request, page, lambda experiment: experiment_to_proto(experiment, full=full), by_time)
        return pb.ListExperimentsResponse(experiments=experiments, next_page_token=token)

    async def CompareExperiments(
        self, request: pb.CompareExperimentsRequest, context: Context
    ) -> pb.CompareExperimentsResponse:
        comparison = await self._trainings.compare(
            caller(),
            [UUID(experiment_id) for experiment_id in request.experiment_ids],
            METRIC.find(request.metric),
            PARTITION.find(request.partition),
        )
        return comparison_to_proto(comparison)

    async def DeleteExperiment(
        self, request: pb.DeleteExperimentRequest, context: Context
    ) -> pb.DeleteExperimentResponse:
        deleted = await self._trainings.delete(
            caller(), UUID(request.experiment_id), request.etag, validate_only=request.validate_only
        )
        return pb.DeleteExperimentResponse(deleted=deleted_to_proto(deleted))
