"""Models as MLflow has them: a folder with the pipeline, the code to load it, and its signature."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from easyml_server.domain.datasets import StorageType
from easyml_server.domain.manifest import MANIFEST_FILENAME, load_manifest
from easyml_server.domain.models import ModelManifest, Signature, SignatureColumn
from easyml_server.tracking.shared_code import copy_shared_code

LOADER = Path(__file__).with_name("mlflow_loader.py")
LIBRARIES = ("scikit-learn", "skops", "pandas", "numpy", "lightgbm", "xgboost-cpu", "xgboost")
DATA_TYPES = {
    StorageType.INT64: DataType.long,
    StorageType.DOUBLE: DataType.double,
    StorageType.STRING: DataType.string,
    StorageType.BOOL: DataType.boolean,
    StorageType.TIMESTAMP: DataType.datetime,
}


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
            pip_requirements=list(_requirements()),
        )
        yield target


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


def _requirements() -> Iterator[str]:
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            yield f"{name}=={importlib.metadata.version(name)}"
