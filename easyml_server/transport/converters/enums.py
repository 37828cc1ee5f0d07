"""Enums of the contract and of the domain, matched by name when this is imported: a missing one stops the start."""

from __future__ import annotations

from enum import Enum
from typing import Any, Generic, TypeVar

from easyml.v1 import (
    algorithm_pb2,
    dataset_pb2,
    dataset_service_pb2,
    deployment_pb2,
    dvc_pb2,
    experiment_pb2,
    model_pb2,
    permission_pb2,
    project_pb2,
    project_service_pb2,
    training_event_pb2,
    training_service_pb2,
)
from easyml_server.domain import (
    algorithms,
    datasets,
    deployments,
    events,
    experiments,
    models,
    projects,
    users,
    versioning,
)
from easyml_server.domain.pages import Order

Member = TypeVar("Member", bound=Enum)


class EnumCodec(Generic[Member]):
    """Translates one enum both ways; the contract's zero value is None."""

    def __init__(self, domain: type[Member], contract: Any) -> None:
        zero = contract.DESCRIPTOR.values_by_number[0].name
        prefix = zero.removesuffix("UNSPECIFIED")
        numbers = {value.name: value.number for value in contract.DESCRIPTOR.values if value.number}
        if set(numbers) != {prefix + member.name for member in domain}:
            raise TypeError(f"{domain.__name__} and {contract.DESCRIPTOR.name} do not have the same names.")
        self._to_number = {member: numbers[prefix + member.name] for member in domain}
        self._to_member = {number: member for member, number in self._to_number.items()}

    def to_proto(self, member: Member | None) -> Any:
        """The contract's number."""
        return 0 if member is None else self._to_number[member]

    def find(self, number: int) -> Member | None:
        """The domain's member; None if it was not set."""
        return self._to_member.get(number)

    def get(self, number: int) -> Member:
        """The domain's member, where the contract's rules have made sure that it is set."""
        return self._to_member[number]


PERMISSION = EnumCodec(users.Permission, permission_pb2.Permission)
ROLE = EnumCodec(projects.Role, project_pb2.Role)
VISIBILITY = EnumCodec(projects.Visibility, project_pb2.ProjectVisibility)
FILE_FORMAT = EnumCodec(datasets.FileFormat, dataset_pb2.FileFormat)
STORAGE_TYPE = EnumCodec(datasets.StorageType, dataset_pb2.StorageType)
COLUMN_KIND = EnumCodec(datasets.ColumnKind, dataset_pb2.ColumnKind)
COLUMN_ROLE = EnumCodec(datasets.ColumnRole, dataset_pb2.ColumnRole)
DATASET_WARNING = EnumCodec(datasets.DatasetWarningKind, dataset_pb2.DatasetWarningKind)
UPLOAD_STATE = EnumCodec(datasets.UploadState, dataset_pb2.UploadState)
TASK = EnumCodec(algorithms.Task, algorithm_pb2.Task)
HYPERPARAMETER_TYPE = EnumCodec(algorithms.HyperparameterType, algorithm_pb2.HyperparameterType)
METRIC = EnumCodec(experiments.Metric, algorithm_pb2.Metric)
DIRECTION = EnumCodec(experiments.Direction, algorithm_pb2.Direction)
TRAINING_STATE = EnumCodec(experiments.TrainingState, experiment_pb2.TrainingState)
TRAINING_STAGE = EnumCodec(experiments.TrainingStage, experiment_pb2.TrainingStage)
PARTITION = EnumCodec(experiments.Partition, experiment_pb2.Partition)
FAILURE_KIND = EnumCodec(experiments.FailureKind, experiment_pb2.FailureKind)
FAILURE_REASON = EnumCodec(experiments.FailureReason, experiment_pb2.FailureReason)
TRAINING_WARNING = EnumCodec(experiments.TrainingWarningKind, experiment_pb2.TrainingWarningKind)
LOG_LEVEL = EnumCodec(events.LogLevel, training_event_pb2.LogLevel)
ARTIFACT_FORMAT = EnumCodec(models.ArtifactFormat, model_pb2.ArtifactFormat)
DEPLOYMENT_TARGET = EnumCodec(deployments.DeploymentTarget, deployment_pb2.DeploymentTarget)
DEPLOYMENT_ENVIRONMENT = EnumCodec(deployments.DeploymentEnvironment, deployment_pb2.DeploymentEnvironment)
ROLLOUT_STRATEGY = EnumCodec(deployments.RolloutStrategy, deployment_pb2.RolloutStrategy)
DEPLOYMENT_STATE = EnumCodec(deployments.DeploymentState, deployment_pb2.DeploymentState)
REVISION_STATE = EnumCodec(deployments.RevisionState, deployment_pb2.RevisionState)
REPLICA_STATE = EnumCodec(deployments.ReplicaState, deployment_pb2.ReplicaState)
REPLICA_FAILURE_REASON = EnumCodec(deployments.ReplicaFailureReason, deployment_pb2.ReplicaFailureReason)
CONDITION_TYPE = EnumCodec(deployments.ConditionType, deployment_pb2.ConditionType)
DVC_STATE = EnumCodec(versioning.DvcState, dvc_pb2.DvcState)

PROJECT_ORDER = {
    project_service_pb2.PROJECT_ORDER_CREATE_TIME_ASC: Order.OLDEST_FIRST,
    project_service_pb2.PROJECT_ORDER_NAME_ASC: Order.BY_NAME,
}
DATASET_ORDER = {
    dataset_service_pb2.DATASET_ORDER_CREATE_TIME_ASC: Order.OLDEST_FIRST,
    dataset_service_pb2.DATASET_ORDER_NAME_ASC: Order.BY_NAME,
}
EXPERIMENT_ORDER = {training_service_pb2.EXPERIMENT_ORDER_CREATE_TIME_ASC: Order.OLDEST_FIRST}
