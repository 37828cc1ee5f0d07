"""Models, their versions, aliases and files."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from pathlib import Path

from easyml.v1 import model_pb2, project_pb2
from easyml.v1 import model_service_pb2 as pb
from easyml_client.errors import InvalidInput
from easyml_client.plans.dvc import write_pointer
from easyml_client.plans.paging import pages
from easyml_client.plans.references import ModelRef, ProjectRef, model_version, project_id
from easyml_client.plans.selection import ModelSelectionCriteria
from easyml_client.plans.transfers import Progress, arrive, told_format
from easyml_client.resources.dvc import DvcPointer
from easyml_client.resources.models import AliasHistoryEntry, Model, ModelVersion
from easyml_client.resources.projects import DeletedResources
from easyml_client.resources.selection import ModelSelection
from easyml_client.steps import Plan, Stream, call
from easyml_client.values import enum_number, is_id, to_timestamp

_ENDINGS = {".onnx": "onnx", ".skops": "skops", ".zip": "mlflow"}


def list_(project: ProjectRef, *, name_prefix: str = "", page_size: int = 0) -> Stream[Model]:
    """The models of a project, newest first."""
    request = pb.ListModelsRequest(
        project_id=(yield from project_id(project)), name_prefix=name_prefix, page_size=page_size
    )
    yield from pages(request, pb.ListModelsResponse, lambda page: map(Model.of, page.models))


def versions(
    project: ProjectRef,
    model: str = "",
    *,
    alias: str = "",
    labels: Mapping[str, str] | None = None,
    view: str | None = None,
    page_size: int = 0,
) -> Stream[ModelVersion]:
    """The versions of a model, or of all models, newest first.

    They come without metrics and signature unless the view is "full".
    """
    request = pb.ListModelVersionsRequest(
        project_id=(yield from project_id(project)),
        model_name=model,
        alias=alias,
        labels=labels or {},
        view=enum_number("view", project_pb2.ResourceView, view),
        page_size=page_size,
    )
    yield from pages(request, pb.ListModelVersionsResponse, lambda page: map(ModelVersion.of, page.model_versions))


def get(model: ModelRef, *, project: ProjectRef | None = None, view: str | None = None) -> Plan[ModelVersion]:
    """One version, by id or as "churn", "churn:3", "churn@champion", and how it did; names need the project.

    The view "basic" leaves the results out, and is answered while a document server of the platform is away.
    """
    request = pb.GetModelVersionRequest(
        **(yield from model_version(model, project)), view=enum_number("view", project_pb2.ResourceView, view)
    )
    return ModelVersion.of((yield from call(request, pb.GetModelVersionResponse)).model_version)


def select(project: ProjectRef, criteria: ModelSelectionCriteria) -> Plan[ModelSelection]:
    """The version of a project that meets criteria best, and how the others compare.

    WrongState (reason NO_ELIGIBLE_MODEL) if none meets them. `deployments.create` and `update` take such criteria in
    place of a version.
    """
    request = pb.SelectModelRequest(project_id=(yield from project_id(project)), criteria=criteria.message())
    return ModelSelection.of((yield from call(request, pb.SelectModelResponse)))


def update(
    model: ModelRef,
    *,
    project: ProjectRef | None = None,
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    etag: str = "",
) -> Plan[ModelVersion]:
    """Change what is not None of a version."""
    request = pb.UpdateModelVersionRequest(
        model_version_id=(yield from _version_id(model, project)),
        description=description or "",
        labels=labels or {},
        etag=etag,
    )
    given = {"description": description, "labels": labels}
    request.update_mask.paths.extend(path for path, value in given.items() if value is not None)
    return ModelVersion.of((yield from call(request, pb.UpdateModelVersionResponse)).model_version)


def delete(
    model: ModelRef,
    *,
    project: ProjectRef | None = None,
    force: bool = False,
    validate_only: bool = False,
    etag: str = "",
) -> Plan[DeletedResources]:
    """Delete a version and its files; with force although aliases point to it. `validate_only` says what would go."""
    request = pb.DeleteModelVersionRequest(
        model_version_id=(yield from _version_id(model, project)), force=force, validate_only=validate_only, etag=etag
    )
    return DeletedResources.of((yield from call(request, pb.DeleteModelVersionResponse)).deleted)


def set_alias(model: ModelRef, alias: str, *, project: ProjectRef | None = None) -> Plan[ModelVersion]:
    """Point an alias to a version, at once away from where it was."""
    request = pb.SetModelAliasRequest(model_version_id=(yield from _version_id(model, project)), alias=alias)
    return ModelVersion.of((yield from call(request, pb.SetModelAliasResponse)).model_version)


def delete_alias(project: ProjectRef, model: str, alias: str) -> Plan[None]:
    """Take an alias away; its history stays. `model` is the model's name."""
    request = pb.DeleteModelAliasRequest(project_id=(yield from project_id(project)), model_name=model, alias=alias)
    yield from call(request, pb.DeleteModelAliasResponse)


def alias_history(
    project: ProjectRef, model: str, *, alias: str = "", at_time: dt.datetime | None = None, page_size: int = 0
) -> Stream[AliasHistoryEntry]:
    """Which version an alias pointed to, and when; newest first. `model` is the model's name."""
    request = pb.ListAliasHistoryRequest(
        project_id=(yield from project_id(project)),
        model_name=model,
        alias=alias,
        at_time=to_timestamp(at_time) if at_time else None,
        page_size=page_size,
    )
    yield from pages(request, pb.ListAliasHistoryResponse, lambda page: map(AliasHistoryEntry.of, page.entries))


def export(
    model: ModelRef,
    path: str | os.PathLike[str] | None = None,
    *,
    project: ProjectRef | None = None,
    format: str | None = None,
    progress: Progress | None = None,
) -> Plan[Path]:
    """Save a version as "onnx", "skops" or "mlflow" (a zip file); the path as in `datasets.download`.

    Without a format the path's ending says it (.onnx, .skops, .zip), and onnx where the path has none or is a folder.
    """
    told = format or told_format(path, _ENDINGS)
    if told is None and path is not None and Path(path).suffix and not Path(path).is_dir():
        raise InvalidInput.at(
            "format",
            f"{Path(path).suffix!r} names no format ({', '.join(_ENDINGS)} do); say which: onnx, skops or mlflow.",
        )
    request = pb.ExportModelRequest(
        model_version_id=(yield from _version_id(model, project)),
        format=enum_number("format", model_pb2.ArtifactFormat, told or "onnx"),
    )
    return (yield from arrive(request, pb.ExportModelResponse, path, progress))


def dvc_pointer(model: ModelRef, *, project: ProjectRef | None = None) -> Plan[DvcPointer]:
    """What plain DVC needs to pull a version."""
    request = pb.GetModelVersionDvcPointerRequest(model_version_id=(yield from _version_id(model, project)))
    return DvcPointer.of((yield from call(request, pb.GetModelVersionDvcPointerResponse)).pointer)


def dvc(
    model: ModelRef,
    folder: str | os.PathLike[str] = ".",
    *,
    project: ProjectRef | None = None,
    timeout: float = 60.0,
) -> Plan[Path]:
    """Write the pointer file and its remote below a folder, so that plain `dvc pull` brings the files; its path.

    It waits, for `timeout` seconds at most, until the version is in the remote.
    """
    found = yield from get(model, project=project, view="basic")
    return (yield from write_pointer(lambda: dvc_pointer(found), found.model_name, folder, timeout))


def _version_id(model: ModelRef, project: ProjectRef | None) -> Plan[str]:
    if isinstance(model, str) and not is_id(model):
        return (yield from get(model, project=project, view="basic")).id
    return model if isinstance(model, str) else model.id
