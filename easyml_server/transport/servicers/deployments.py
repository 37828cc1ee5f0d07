"""DeploymentService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

from easyml.v1 import deployment_logs_pb2, deployment_manifests_pb2, deployment_metrics_pb2, deployment_pb2
from easyml.v1 import deployment_service_pb2 as pb
from easyml.v1 import deployment_service_pb2_grpc as pb_grpc
from easyml_server.domain.deployment_configs import ConfigProblem
from easyml_server.domain.deployments import Deployment
from easyml_server.services.deployment_changes import Deleted, DeploymentChanges, Heartbeat
from easyml_server.services.deployment_configs import DeploymentConfigService
from easyml_server.services.deployment_logs import DeploymentLogs
from easyml_server.services.deployment_manifests import DeploymentManifests
from easyml_server.services.deployment_metrics import DeploymentMetrics
from easyml_server.services.deployments import DeploymentService
from easyml_server.transport.calls import Context, caller, request_key
from easyml_server.transport.converters.deployment_logs import logs_to_proto
from easyml_server.transport.converters.deployment_metrics import metrics_to_proto, to_window
from easyml_server.transport.converters.deployments import (
    config_to_proto,
    deployment_to_proto,
    problem_to_proto,
    revision_to_proto,
    to_config,
    to_deployment_name,
    to_environment,
    to_new_deployment,
    to_traffic,
    to_version_target,
)
from easyml_server.transport.converters.pages import by_time, fit, page_request
from easyml_server.transport.converters.scaling import to_scaling
from easyml_server.transport.converters.values import timestamp
from easyml_server.transport.validation import Validator


class DeploymentServicer(pb_grpc.DeploymentServiceServicer):
    """DeploymentService on the wire."""

    def __init__(
        self,
        deployments: DeploymentService,
        configs: DeploymentConfigService,
        changes: DeploymentChanges,
        metrics: DeploymentMetrics,
        logs: DeploymentLogs,
        manifests: DeploymentManifests,
        validator: Validator,
    ) -> None:
        self._deployments = deployments
        self._configs = configs
        self._changes = changes
        self._metrics = metrics
        self._logs = logs
        self._manifests = manifests
        self._validator = validator

    async def GetDeploymentTemplate(
        self, request: pb.GetDeploymentTemplateRequest, context: Context
    ) -> pb.GetDeploymentTemplateResponse:
        config = self._configs.template(to_environment(request.environment))
        return pb.GetDeploymentTemplateResponse(config=config_to_proto(config))

    async def ValidateDeploymentConfig(
        self, request: pb.ValidateDeploymentConfigRequest, context: Context
    ) -> pb.ValidateDeploymentConfigResponse:
        config = to_config(request.config)
        # The rules of the contract are answered here like all others, where they would be refused elsewhere.
        broken = [
            ConfigProblem(f"config.{each.field}", f"{each.description}.")
            for each in self._validator.violations(request.config)
        ]
        target = to_version_target(request.model_version) if request.HasField("model_version") else None
        problems = [*broken, *await self._configs.problems(caller(), UUID(request.project_id), target, config)]
        return pb.ValidateDeploymentConfigResponse(
            problems=map(problem_to_proto, problems), config=None if problems else config_to_proto(config)
        )

    async def CreateDeployment(
        self, request: pb.CreateDeploymentRequest, context: Context
    ) -> pb.CreateDeploymentResponse:
        deployment = await self._deployments.create(
            caller(), request_key(request), to_new_deployment(request), validate_only=request.validate_only
        )
        message = deployment_to_proto(deployment)
        if request.validate_only:
            message.ClearField("id")
        return pb.CreateDeploymentResponse(deployment=message)

    async def UpdateDeployment(
        self, request: pb.UpdateDeploymentRequest, context: Context
    ) -> pb.UpdateDeploymentResponse:
        deployment = await self._deployments.update(
            caller(),
            request_key(request),
            UUID(request.deployment_id),
            to_version_target(request.model_version) if request.HasField("model_version") else None,
            to_config(request.config) if request.HasField("config") else None,
            request.etag,
            validate_only=request.validate_only,
        )
        return pb.UpdateDeploymentResponse(deployment=deployment_to_proto(deployment))

    async def GetDeployment(self, request: pb.GetDeploymentRequest, context: Context) -> pb.GetDeploymentResponse:
        by_name = request.WhichOneof("target") == "name"
        target = to_deployment_name(request.name) if by_name else UUID(request.deployment_id)
        return pb.GetDeploymentResponse(deployment=deployment_to_proto(await self._deployments.get(caller(), target)))

    async def ListDeployments(self, request: pb.ListDeploymentsRequest, context: Context) -> pb.ListDeploymentsResponse:
        page = await self._deployments.list(caller(), UUID(request.project_id), page_request(request))
        deployments, token = fit(request, page, deployment_to_proto, by_time)
        return pb.ListDeploymentsResponse(deployments=deployments, next_page_token=token)

    async def WatchDeployment(
        self, request: pb.WatchDeploymentRequest, context: Context
    ) -> AsyncIterator[pb.WatchDeploymentResponse]:
        changes = self._changes.watch(caller(), UUID(request.deployment_id), request.after_sequence)
        async with aclosing(changes):
            async for change in changes:
                yield _told(change)

    async def ScaleDeployment(self, request: pb.ScaleDeploymentRequest, context: Context) -> pb.ScaleDeploymentResponse:
        scaling = to_scaling(request.scaling) if request.HasField("scaling") else None
        deployment = await self._deployments.scale(
            caller(), UUID(request.deployment_id), request.replicas, scaling, request.etag
        )
        return pb.ScaleDeploymentResponse(deployment=deployment_to_proto(deployment))

    async def SetTraffic(self, request: pb.SetTrafficRequest, context: Context) -> pb.SetTrafficResponse:
        deployment = await self._deployments.set_traffic(
            caller(), UUID(request.deployment_id), to_traffic(request.traffic), request.etag
        )
        return pb.SetTrafficResponse(deployment=deployment_to_proto(deployment))

    async def PromoteDeployment(
        self, request: pb.PromoteDeploymentRequest, context: Context
    ) -> pb.PromoteDeploymentResponse:
        deployment = await self._deployments.promote(
            caller(), request_key(request), UUID(request.deployment_id), request.etag, full=request.full
        )
        return pb.PromoteDeploymentResponse(deployment=deployment_to_proto(deployment))

    async def RollbackDeployment(
        self, request: pb.RollbackDeploymentRequest, context: Context
    ) -> pb.RollbackDeploymentResponse:
        deployment = await self._deployments.rollback(
            caller(), request_key(request), UUID(request.deployment_id), request.revision, request.etag
        )
        return pb.RollbackDeploymentResponse(deployment=deployment_to_proto(deployment))

    async def StopDeployment(self, request: pb.StopDeploymentRequest, context: Context) -> pb.StopDeploymentResponse:
        deployment = await self._deployments.stop(caller(), UUID(request.deployment_id), request.etag)
        return pb.StopDeploymentResponse(deployment=deployment_to_proto(deployment))

    async def DeleteDeployment(
        self, request: pb.DeleteDeploymentRequest, context: Context
    ) -> pb.DeleteDeploymentResponse:
        await self._deployments.delete(caller(), UUID(request.deployment_id), request.etag)
        return pb.DeleteDeploymentResponse()

    async def WatchDeploymentLogs(
        self, request: deployment_logs_pb2.WatchDeploymentLogsRequest, context: Context
    ) -> AsyncIterator[deployment_logs_pb2.WatchDeploymentLogsResponse]:
        lines = self._logs.watch(caller(), UUID(request.deployment_id), request.tail_lines, follow=request.follow)
        async with aclosing(lines):
            async for said in lines:
                yield logs_to_proto(said)

    async def GetDeploymentMetrics(
        self, request: deployment_metrics_pb2.GetDeploymentMetricsRequest, context: Context
    ) -> deployment_metrics_pb2.GetDeploymentMetricsResponse:
        window = await self._metrics.get(caller(), UUID(request.deployment_id), to_window(request))
        return metrics_to_proto(window)

    async def RenderManifests(
        self, request: deployment_manifests_pb2.RenderManifestsRequest, context: Context
    ) -> deployment_manifests_pb2.RenderManifestsResponse:
        by_name = request.WhichOneof("target") == "name"
        target = to_deployment_name(request.name) if by_name else UUID(request.deployment_id)
        rendered = await self._manifests.render(caller(), target, request.revision)
        return deployment_manifests_pb2.RenderManifestsResponse(revision=rendered.number, manifests=rendered.manifests)

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Context) -> pb.ListRevisionsResponse:
        page = await self._deployments.list_revisions(caller(), UUID(request.deployment_id), page_request(request))
        revisions, token = fit(
            request, page, revision_to_proto, lambda revision: (str(revision.number), str(revision.id))
        )
        return pb.ListRevisionsResponse(revisions=revisions, next_page_token=token)


def _told(change: Deployment | Heartbeat | Deleted) -> pb.WatchDeploymentResponse:
    match change:
        case Heartbeat(time):
            return pb.WatchDeploymentResponse(heartbeat=pb.DeploymentHeartbeat(heartbeat_time=timestamp(time)))
        case Deleted():
            return pb.WatchDeploymentResponse(deleted=pb.DeploymentDeleted())
    message: deployment_pb2.Deployment = deployment_to_proto(change)
    return pb.WatchDeploymentResponse(deployment=message)
