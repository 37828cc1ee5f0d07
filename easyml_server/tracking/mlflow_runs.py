"""Runs and models in MLflow, through MlflowClient with explicit ids. Imported by the tracking process only."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import ModelSignature
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from easyml_server.domain.datasets import StorageType
from easyml_server.domain.manifest import MANIFEST_FILENAME, load_manifest
from easyml_server.domain.models import ModelManifest, Signature, SignatureColumn
from easyml_server.tracking.messages import RecordRequest
from easyml_server.tracking.shared_code import copy_shared_code

EXPERIMENT_TAG = "easyml.experiment_id"
METRICS_A_BATCH = 1_000
PARAMETERS_A_BATCH = 100
MAX_PARAMETER = 6_000
LOADER = Path(__file__).with_name("mlflow_loader.py")
LIBRARIES = ("scikit-learn", "skops", "pandas", "numpy", "lightgbm", "xgboost-cpu", "xgboost")
DATA_TYPES = {
    StorageType.INT64: DataType.long,
    StorageType.DOUBLE: DataType.double,
    StorageType.STRING: DataType.string,
    StorageType.BOOL: DataType.boolean,
    StorageType.TIMESTAMP: DataType.datetime,
}


def record(folder: Path, request: RecordRequest) -> dict[str, Any]:
    """Record a run with parameters, metrics and the model; one that is there and finished is left as it is."""
    uri = f"sqlite:///{database(folder)}"
    client = MlflowClient(tracking_uri=uri)
    experiment_id = _experiment(client, request.experiment_name, folder)
    run = _finished_run(client, experiment_id, request)
    if run is None:
        run = client.create_run(
            experiment_id,
            start_time=request.start_ms,
            run_name=request.run_name,
            tags={EXPERIMENT_TAG: request.experiment_id},
        )
        _log(client, run.info.run_id, request)
        if request.model_path is not None:
            with saved_model(Path(request.model_path)) as model:
                client.log_artifacts(run.info.run_id, str(model), "model")
        client.set_terminated(run.info.run_id, request.status, request.end_ms)
    return {
        "tracking_uri": uri,
        "mlflow_experiment_id": experiment_id,
        "run_id": run.info.run_id,
        "artifact_uri": run.info.artifact_uri,
        "model_uri": f"runs:/{run.info.run_id}/model" if request.model_path else "",
    }


def database(folder: Path) -> Path:
    """MLflow's database, made aside if there is none: half of one, left by a kill, could never be used again."""
    path = folder / "mlflow.db"
    if not path.exists():
        with tempfile.TemporaryDirectory() as aside:
            made = Path(aside) / path.name
            store: Any = SqlAlchemyStore(f"sqlite:///{made}", str(folder / "artifacts"))  # type: ignore[no-untyped-call]
            store.engine.dispose()
            # Another server may have been faster.
            with suppress(FileExistsError):
                path.hardlink_to(made)
    return path


def export_model(model_path: Path, target: Path) -> None:
    """Write a zip of the MLflow model folder; `target` ends in .zip."""
    with saved_model(model_path) as model:
        shutil.make_archive(str(target.with_suffix("")), "zip", model)


@contextmanager
def saved_model(model_path: Path) -> Iterator[Path]:
    """An MLflow model folder of a stored version, for a while."""
    manifest = load_manifest((model_path / MANIFEST_FILENAME).read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "model")
        mlflow.pyfunc.save_model(
            path=str(target),
            python_model=str(LOADER),
            artifacts={"version": str(_copied(model_path, Path(scratch)))},
            code_paths=[str(copy_shared_code(Path(scratch)))],
            signature=_signature(manifest.signature),
            input_example=_input_example(manifest),
            pip_requirements=_requirements(),
        )
        yield target


def _experiment(client: MlflowClient, name: str, folder: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=(folder / "artifacts").as_uri()))


def _finished_run(client: MlflowClient, experiment_id: str, request: RecordRequest) -> Any | None:
    found = client.search_runs([experiment_id], f"tags.`{EXPERIMENT_TAG}` = '{request.experiment_id}'")
    finished = [run for run in found if run.info.status == request.status]
    for run in found:
        if run not in finished:
            client.delete_run(run.info.run_id)
    return finished[0] if finished else None


def _log(client: MlflowClient, run_id: str, request: RecordRequest) -> None:
    parameters = [Param(key, value[:MAX_PARAMETER]) for key, value in request.parameters.items()]
    tags = [RunTag(key, value) for key, value in request.tags.items() if value]
    metrics = [Metric(p.key, p.value, p.timestamp_ms, p.step) for p in request.metrics]
    client.log_batch(run_id, tags=tags)
    for batch in _batches(parameters, PARAMETERS_A_BATCH):
        client.log_batch(run_id, params=batch)
    for batch in _batches(metrics, METRICS_A_BATCH):
        client.log_batch(run_id, metrics=batch)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _copied(model_path: Path, scratch: Path) -> Path:
    """The files a loaded model needs, under a name that says nothing of where they were."""
    return Path(shutil.copytree(model_path, scratch / "version", ignore=shutil.ignore_patterns("*.onnx")))


def _signature(signature: Signature) -> ModelSignature:
    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(_data_type(column), column.name, required=not column.nullable) for column in signature.inputs
    ]
    return ModelSignature(Schema(inputs), Schema([ColSpec(DATA_TYPES[signature.output_type], signature.output)]))


def _input_example(manifest: ModelManifest) -> pd.DataFrame | None:
    if not manifest.input_example:
        return None
    names = [column.name for column in manifest.signature.inputs]
    frame = pd.DataFrame([dict(row) for row in manifest.input_example], columns=names)
    for column in manifest.signature.inputs:
        if column.storage_type is StorageType.TIMESTAMP:
            frame[column.name] = pd.to_datetime(frame[column.name], utc=True).dt.tz_convert(None)
        elif _data_type(column) is DataType.double:
            frame[column.name] = frame[column.name].astype("float64")
    return frame


def _data_type(column: SignatureColumn) -> DataType:
    # A nullable whole number arrives as a float in a data frame, which MLflow would refuse as a long.
    if column.nullable and column.storage_type is StorageType.INT64:
        return DataType.double
    return DATA_TYPES[column.storage_type]


def _requirements() -> list[str]:
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return [f"{name}=={installed[name]}" for name in LIBRARIES if name in installed]
