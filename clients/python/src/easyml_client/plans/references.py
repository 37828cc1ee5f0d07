"""Names and objects where the contract wants ids.

A reference is an id, a name, or the object itself. A text that is a UUID is an id. Where a name needs a project and
none is given, EASYML_PROJECT names it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from easyml.v1 import dataset_service_pb2, model_service_pb2, project_service_pb2
from easyml_client.errors import InvalidInput, NotFound
from easyml_client.plans.paging import collect, pages
from easyml_client.resources.datasets import Dataset
from easyml_client.resources.experiments import Experiment
from easyml_client.resources.models import ModelVersion
from easyml_client.resources.projects import Project
from easyml_client.steps import Plan
from easyml_client.values import is_id

PROJECT_VARIABLE = "EASYML_PROJECT"

ProjectRef = str | Project
DatasetRef = str | Dataset
ExperimentRef = str | Experiment
ModelRef = str | ModelVersion


def project_id(project: ProjectRef) -> Plan[str]:
    """The id of a project."""
    if isinstance(project, Project):
        return project.id
    if is_id(project):
        return project
    request = project_service_pb2.ListProjectsRequest(name_prefix=project)
    found = yield from collect(pages(request, project_service_pb2.ListProjectsResponse, lambda page: page.projects))
    return _only("project", project, [each.id for each in found if each.name == project])


def dataset_id(dataset: DatasetRef, project: ProjectRef | None) -> Plan[str]:
    """The id of a dataset; a name needs its project."""
    if isinstance(dataset, Dataset):
        return dataset.id
    if is_id(dataset):
        return dataset
    of_project = yield from project_id(project_of("Dataset", dataset, project))
    request = dataset_service_pb2.ListDatasetsRequest(project_id=of_project, name_prefix=dataset)
    found = yield from collect(pages(request, dataset_service_pb2.ListDatasetsResponse, lambda page: page.datasets))
    return _only("dataset", dataset, [each.id for each in found if each.name == dataset])


def experiment_id(experiment: ExperimentRef) -> str:
    """The id of an experiment; names of experiments are not unique, so only ids count."""
    found = experiment if isinstance(experiment, str) else experiment.id
    if not is_id(found):
        raise InvalidInput.at("experiment", f"{found!r} is no experiment id; `easyml experiments list` shows them.")
    return found


def model_version(model: ModelRef, project: ProjectRef | None) -> Plan[dict[str, Any]]:
    """The arguments `model_version_id` or `name` of a request.

    Names are "churn" (its newest version), "churn:3" or "churn@champion", and need the project.
    """
    if isinstance(model, ModelVersion):
        return {"model_version_id": model.id}
    if is_id(model):
        return {"model_version_id": model}
    return {"name": model_version_name(model, (yield from project_id(project_of("Model", model, project))))}


def model_version_name(text: str, of_project: str) -> model_service_pb2.ModelVersionName:
    """What "churn", "churn:3" and "churn@champion" are in the contract."""
    name, at, alias = text.rpartition("@")
    if at and name and alias:
        return model_service_pb2.ModelVersionName(project_id=of_project, model_name=name, alias=alias)
    name, colon, version = text.rpartition(":")
    if colon and name and version.isascii() and version.isdigit() and 0 < int(version) < 1 << 31:
        return model_service_pb2.ModelVersionName(project_id=of_project, model_name=name, version=int(version))
    return model_service_pb2.ModelVersionName(project_id=of_project, model_name=text)


def project_of(kind: str, name: str, project: ProjectRef | None) -> ProjectRef:
    """The project of a name: the one given, or that of the environment."""
    project = project or os.environ.get(PROJECT_VARIABLE)
    if not project:
        raise InvalidInput.at(
            "project", f"{kind} {name!r} is a name, so its project is needed too; name it, or set {PROJECT_VARIABLE}."
        )
    return project


def _only(kind: str, name: str, ids: Sequence[str]) -> str:
    if not ids:
        raise NotFound(f"There is no {kind} {name!r} that you can see; `easyml {kind}s list` shows what there is.")
    if len(ids) > 1:
        raise InvalidInput.at(kind, f"{len(ids)} {kind}s are named {name!r}; use an id: {', '.join(ids)}.")
    return ids[0]
