"""Projects, members, configuration."""

from __future__ import annotations

from uuid import UUID

from easyml.v1 import project_pb2
from easyml_server.domain.projects import Deleted, Member, Project, ProjectConfig, Visibility
from easyml_server.transport.converters.enums import ROLE, VISIBILITY
from easyml_server.transport.converters.values import from_struct, struct, timestamp


def project_to_proto(project: Project) -> project_pb2.Project:
    """A project as its caller sees it."""
    return project_pb2.Project(
        id=str(project.id),
        name=project.name,
        description=project.description,
        labels=project.labels,
        role=ROLE.to_proto(project.role),
        creator_id=str(project.creator_id),
        create_time=timestamp(project.create_time),
        update_time=timestamp(project.update_time),
        etag=project.etag,
    )


def config_to_proto(config: ProjectConfig) -> project_pb2.ProjectConfig:
    """A configuration."""
    return project_pb2.ProjectConfig(
        project_id=str(config.project_id),
        default_hyperparameters={name: struct(values) for name, values in config.default_hyperparameters.items()},
        mlflow_experiment=config.mlflow_experiment,
        storage=project_pb2.StorageConfig(
            max_bytes=config.storage_max_bytes, keep_original_files=config.keep_original_files
        ),
        visibility=VISIBILITY.to_proto(config.visibility),
        update_time=timestamp(config.update_time),
        etag=config.etag,
    )


def to_config(message: project_pb2.ProjectConfig) -> ProjectConfig:
    """A configuration with new values."""
    storage = message.storage
    return ProjectConfig(
        project_id=UUID(message.project_id),
        default_hyperparameters={
            name: from_struct(values, f'config.default_hyperparameters["{name}"]')
            for name, values in message.default_hyperparameters.items()
        },
        mlflow_experiment=message.mlflow_experiment,
        storage_max_bytes=storage.max_bytes,
        keep_original_files=storage.keep_original_files if storage.HasField("keep_original_files") else True,
        visibility=VISIBILITY.find(message.visibility) or Visibility.PRIVATE,
        etag=message.etag,
    )


def member_to_proto(member: Member) -> project_pb2.ProjectMember:
    """A member."""
    return project_pb2.ProjectMember(
        user_id=str(member.user_id),
        email=member.email,
        display_name=member.display_name,
        role=ROLE.to_proto(member.role),
        create_time=timestamp(member.create_time),
    )


def deleted_to_proto(deleted: Deleted) -> project_pb2.DeletedResources:
    """What a delete removed."""
    return project_pb2.DeletedResources(
        projects=deleted.projects,
        datasets=deleted.datasets,
        experiments=deleted.experiments,
        models=deleted.models,
        model_versions=deleted.model_versions,
        bytes_freed=deleted.bytes_freed,
    )
