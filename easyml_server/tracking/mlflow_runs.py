"""Runs in MLflow, through MlflowClient with explicit ids. Imported by the tracking process only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from easyml_server.processes.answering import ToldError
from easyml_server.tracking.messages import RecordRequest
from easyml_server.tracking.mlflow_models import saved_model
from easyml_server.tracking.mlflow_place import Place, every, opened

EXPERIMENT_TAG = "easyml.experiment_id"
METRICS_A_BATCH = 1_000
PARAMETERS_A_BATCH = 100
MAX_PARAMETER = 6_000
NOT_IN_A_KEY = re.compile(r"[^\w.\- :]")
"""Labels have any, and one that MLflow refuses would keep the whole run waiting."""


def record(folder: Path, request: RecordRequest) -> dict[str, Any]:
    """Record a run with parameters, metrics and the model; one that is there and finished is left as it is."""
    with opened(folder) as place:
        experiment_id = place.experiment(request.experiment_name)
        run = _finished(place.client, experiment_id, request)
        if run is None:
            for cut_off in _runs(place.client, experiment_id, request):
                _delete(place.client, cut_off)
            _write(place, experiment_id, request)
            run = _finished(place.client, experiment_id, request)
        if run is None:
            raise ToldError("the run was deleted while it was written")
    return {
        "mlflow_experiment_id": experiment_id,
        "run_id": run.info.run_id,
        "artifact_uri": run.info.artifact_uri,
        "model_uri": f"runs:/{run.info.run_id}/model" if request.model_path else "",
    }


def _finished(client: MlflowClient, experiment_id: str, request: RecordRequest) -> Run | None:
    """The one finished run, if there is one. Of two that were written at once, whoever looks keeps the same."""
    finished = [run for run in _runs(client, experiment_id, request) if run.info.status == request.status]
    finished.sort(key=lambda run: str(run.info.run_id))
    for run in finished[1:]:
        _delete(client, run)
    return finished[0] if finished else None


def _runs(client: MlflowClient, experiment_id: str, request: RecordRequest) -> list[Run]:
    ours = f"tags.`{EXPERIMENT_TAG}` = '{request.experiment_id}'"
    return list(every(partial(client.search_runs, [experiment_id], ours)))


def _delete(client: MlflowClient, run: Run) -> None:
    try:
        client.delete_run(run.info.run_id)
    except MlflowException:
        # Another server may have been faster.
        if client.get_run(run.info.run_id).info.lifecycle_stage == LifecycleStage.ACTIVE:
            raise


def _write(place: Place, experiment_id: str, request: RecordRequest) -> None:
    run = place.client.create_run(
        experiment_id,
        start_time=request.start_ms,
        run_name=request.run_name,
        tags={EXPERIMENT_TAG: request.experiment_id},
    )
    _log(place.client, run.info.run_id, request)
    if request.model_path is not None:
        with saved_model(Path(request.model_path)) as model:
            place.client.log_artifacts(run.info.run_id, str(model), "model")
    place.client.set_terminated(run.info.run_id, request.status, request.end_ms)


def _log(client: MlflowClient, run_id: str, request: RecordRequest) -> None:
    parameters = [Param(key, value[:MAX_PARAMETER]) for key, value in request.parameters.items()]
    tags = [RunTag(NOT_IN_A_KEY.sub("_", key), value) for key, value in request.tags.items() if value]
    metrics = [Metric(p.key, p.value, p.timestamp_ms, p.step) for p in request.metrics]
    client.log_batch(run_id, tags=tags)
    for batch in _batches(parameters, PARAMETERS_A_BATCH):
        client.log_batch(run_id, params=batch)
    for batch in _batches(metrics, METRICS_A_BATCH):
        client.log_batch(run_id, metrics=batch)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
