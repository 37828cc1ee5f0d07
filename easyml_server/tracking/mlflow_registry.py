"""Registered models in MLflow, brought to what EasyML has: versions in their order, aliases, deletions.

What is there is looked up by tags, so the same again changes nothing, and what others put there is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from easyml_server.processes.answering import ToldError
from easyml_server.tracking.messages import MirrorRequest, VersionToMirror
from easyml_server.tracking.mlflow_errors import is_missing, is_taken
from easyml_server.tracking.mlflow_place import every, opened

MODEL_TAG = "easyml.model_id"
VERSION_TAG = "easyml.model_version_id"
NUMBER_TAG = "easyml.version"


def mirror(folder: Path, request: MirrorRequest) -> dict[str, Any]:
    """Bring one registered model to what its model here is; gone here, it goes there."""
    with opened(folder) as place:
        name = _registered(place.client, request)
        if name is not None:
            _bring(place.client, name, request)
    return {"name": name or ""}


def _registered(client: MlflowClient, request: MirrorRequest) -> str | None:
    """Its name there, which stays as it was when it was made; None if there is none and nothing to put into one."""
    name = _found(client, request.model_id)
    if name is not None or not any(version.run_id for version in request.versions):
        return name
    try:
        client.create_registered_model(request.name, tags={MODEL_TAG: request.model_id, **request.tags})
    except MlflowException as error:
        if not is_taken(error):
            raise
        # Another server may have been faster.
        if _found(client, request.model_id) != request.name:
            raise ToldError(f"the registered model {request.name} there is not EasyML's; rename it") from error
    return request.name


def _found(client: MlflowClient, model_id: str) -> str | None:
    found = client.search_registered_models(f"tags.`{MODEL_TAG}` = '{model_id}'", max_results=1)
    return str(found[0].name) if found else None


def _bring(client: MlflowClient, name: str, request: MirrorRequest) -> None:
    stored: list[ModelVersion] = list(every(partial(client.search_model_versions, f"name = '{name}'")))
    there = _kept(client, name, request, stored)
    if not request.versions and all(VERSION_TAG in version.tags for version in stored):
        client.delete_registered_model(name)
        return
    for version in sorted(request.versions, key=lambda each: each.number):
        known = there.get(version.id)
        if known is None:
            if (added := _added(client, name, version)) is not None:
                there[version.id] = added
        elif (known.description or "") != version.description:
            client.update_model_version(name, known.version, version.description)
    _point(client, name, request, there)


def _kept(
    client: MlflowClient, name: str, request: MirrorRequest, stored: list[ModelVersion]
) -> dict[str, ModelVersion]:
    """Those of the stored versions that are still versions here, by their id; others of ours are deleted."""
    wanted = {version.id for version in request.versions}
    kept: dict[str, ModelVersion] = {}
    for version in sorted(stored, key=lambda each: int(each.version)):
        identity = version.tags.get(VERSION_TAG)
        if identity is None:
            continue
        if identity in wanted and identity not in kept:
            kept[identity] = version
        else:
            client.delete_model_version(name, version.version)
    return kept


def _added(client: MlflowClient, name: str, version: VersionToMirror) -> ModelVersion | None:
    """None without its run: it is not recorded yet, or is gone, or is on another server."""
    if version.run_id is None:
        return None
    try:
        run = client.get_run(version.run_id)
    except MlflowException as error:
        if is_missing(error):
            return None
        raise
    return client.create_model_version(
        name,
        f"{run.info.artifact_uri}/model",
        run_id=version.run_id,
        tags={VERSION_TAG: version.id, NUMBER_TAG: str(version.number)},
        description=version.description,
    )


def _point(client: MlflowClient, name: str, request: MirrorRequest, there: Mapping[str, ModelVersion]) -> None:
    """Set, move and take away aliases; one whose version waits for its run stays where it is until then."""
    ours = {str(version.version) for version in there.values()}
    waiting = {version.id for version in request.versions if version.waits}
    now: dict[str, str] = {alias: str(at) for alias, at in client.get_registered_model(name).aliases.items()}
    wanted = {alias: str(there[at].version) for alias, at in request.aliases.items() if at in there}
    left = {alias for alias, at in request.aliases.items() if at in waiting}
    for alias, at in now.items():
        if at in ours and alias not in wanted and alias not in left:
            client.delete_registered_model_alias(name, alias)
    for alias, at in wanted.items():
        if now.get(alias) != at:
            client.set_registered_model_alias(name, alias, at)
