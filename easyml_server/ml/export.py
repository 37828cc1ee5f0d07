"""Writes a fitted model into its folder: `model.skops`, `model.onnx` where parity is proved, and `manifest.json`.

Every file is flushed to disk, and so is the folder; whoever called can publish it by a rename.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
import pandas as pd
import skops.io
from sklearn.pipeline import Pipeline

from easyml_server.domain.algorithms import Algorithm
from easyml_server.domain.experiments import FailureReason
from easyml_server.domain.faults import fault_point
from easyml_server.domain.manifest import MANIFEST_FILENAME, dump_manifest
from easyml_server.domain.models import Artifact, ArtifactFormat, ModelManifest, Parity, Signature
from easyml_server.ml import graphs
from easyml_server.ml.prepare import MISSING_CATEGORY, Encoding, encoding_of, prepared_names
from easyml_server.ml.refusal import Refused
from easyml_server.ml.trusted_types import TRUSTED_TYPES

SKOPS_FILENAME: Final = "model.skops"
ONNX_FILENAME: Final = "model.onnx"
MAX_PARITY_ROWS: Final = 2000
# A forest of this size takes 7 s and 1.5 GB of memory on top of its training, most of both in ONNX Runtime.
MAX_CONVERTED_BYTES: Final = 256 << 20
_TOO_LARGE: Final = Parity(proved=False, cause="The pipeline is too large to be turned into a graph (above 256 MiB).")
_ODD_ROWS: Final = 50
_UNSEEN: Final = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CAUSE: Final = 300
_LIBRARIES: Final = ("scikit-learn", "numpy", "scipy", "pandas", "skops", "skl2onnx", "onnx", "onnxruntime")


class Graph(NamedTuple):
    """A graph as it is stored, and as it answers."""

    data: bytes
    session: onnxruntime.InferenceSession


MadeGraph = Future[tuple[Graph | None, Parity]]


@dataclass(frozen=True, slots=True)
class FittedModel:
    """What there is to store; `probe` are prepared rows that nothing was learned from, `deviation` is of the target."""

    algorithm: Algorithm
    pipeline: Pipeline
    signature: Signature
    target: str
    probe: pd.DataFrame
    deviation: float
    input_example: tuple[Mapping[str, Any], ...]


@contextmanager
def graph_beside(model: FittedModel) -> Iterator[MadeGraph]:
    """The graph as it is made in a thread, while the block measures and writes the pipeline.

    Both leave the interpreter to each other for most of their time: trees are walked and graphs opened without it.
    """
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(_graph_within_limits, model)


def export_model(model: FittedModel, made: MadeGraph, folder: Path, max_bytes: int) -> ModelManifest:
    """Write all files. Raises Refused (MODEL_TOO_LARGE) when the pipeline alone is larger than `max_bytes`."""
    stored = _write_pipeline(model.pipeline, folder, max_bytes)
    artifacts = [stored]
    graph, parity = made.result()
    if graph is not None and stored.size_bytes + len(graph.data) > max_bytes:
        graph, parity = None, replace(parity, proved=False, cause="Pipeline and graph together would be too large.")
    if graph is not None:
        _write(folder / ONNX_FILENAME, graph.data)
        artifacts.append(_artifact(ArtifactFormat.ONNX, folder / ONNX_FILENAME))
    manifest = ModelManifest(
        task=model.algorithm.task,
        algorithm=model.algorithm.name,
        target=model.target,
        signature=model.signature,
        artifacts=tuple(artifacts),
        parity=parity,
        library_versions=library_versions(model.algorithm),
        input_example=model.input_example,
    )
    _write(folder / MANIFEST_FILENAME, dump_manifest(manifest).encode())
    with _disk_failures():
        _flush(folder)
    return manifest


def load_pipeline(path: Path) -> Pipeline:
    """The pipeline in a skops file; a file that asks for a type beyond ours is refused by skops."""
    return skops.io.load(path, trusted=list(TRUSTED_TYPES))


def _graph_within_limits(model: FittedModel) -> tuple[Graph | None, Parity]:
    return make_graph(model) if _bytes_in_memory(model.pipeline) <= MAX_CONVERTED_BYTES else (None, _TOO_LARGE)


def _bytes_in_memory(pipeline: Pipeline) -> int:
    """About what its file will have: arrays are counted where they lie, and nothing of it is kept."""
    arrays: list[int] = []
    rest = pickle.dumps(pipeline, protocol=5, buffer_callback=lambda array: arrays.append(array.raw().nbytes))
    return len(rest) + sum(arrays)


def make_graph(model: FittedModel) -> tuple[Graph | None, Parity]:
    """The ONNX graph if it is proved to predict like the pipeline, else none and why.

    Models on scaled inputs are tried in 64 bits first, where both agree to the last digits; trees were fitted on
    numbers of 32 bits.
    """
    probabilities = model.signature.predicts_probabilities
    rows = probe_rows(model.probe, model.signature)
    expected = graphs.ask_pipeline(model.pipeline, rows, probabilities=probabilities)
    parity = Parity(proved=False)
    for double in (True, False) if model.algorithm.scales_inputs else (False,):
        try:
            graph = graphs.convert(model.pipeline, rows, probabilities=probabilities, double=double)
            session = graphs.open_graph(graph)
            actual = graphs.ask_graph(session, rows)
        except MemoryError:
            raise
        except Exception as error:  # converters and runtime raise whatever they like
            parity = Parity(proved=False, cause=_cause(error))
            continue
        parity = graphs.compare(expected, actual, model.deviation)
        if parity.proved:
            return Graph(graph, session), parity
    return None, parity


def probe_rows(prepared: pd.DataFrame, signature: Signature) -> pd.DataFrame:
    """Held-out rows to compare on, and some of them again: without values, and with categories never seen."""
    held_out = prepared.head(MAX_PARITY_ROWS)
    empty, unseen = held_out.head(_ODD_ROWS).copy(), held_out.head(_ODD_ROWS).copy()
    for column, names in zip(signature.inputs, prepared_names(signature.inputs), strict=True):
        is_category = encoding_of(column.storage_type, column.kind) is Encoding.CATEGORY
        if is_category:
            unseen[names[0]] = _object_column(_UNSEEN, unseen.index)
        if column.nullable and is_category:
            empty[names[0]] = _object_column(MISSING_CATEGORY, empty.index)
        elif column.nullable:
            empty[names] = np.nan
    return pd.concat([held_out, empty, unseen], ignore_index=True)


def _object_column(text: str, index: pd.Index[Any]) -> pd.Series[Any]:
    """A plain value would make pandas choose a text type of its own, whose missing value is not ours."""
    return pd.Series([text] * len(index), index=index, dtype=object)


def library_versions(algorithm: Algorithm) -> dict[str, str]:
    """Versions of the libraries that made a model."""
    library = algorithm.implementation.partition(".")[0]
    own = {"lightgbm": ("lightgbm",), "xgboost": ("xgboost",)}.get(library, ())
    versions = {name: version(name) for name in _LIBRARIES}
    versions.update({name: _module_version(name) for name in own})
    return versions


def _module_version(name: str) -> str:
    """Of the module itself: the distribution is called otherwise on some systems."""
    from importlib import import_module

    return str(import_module(name).__version__)


def _write_pipeline(pipeline: Pipeline, folder: Path, max_bytes: int) -> Artifact:
    path = folder / SKOPS_FILENAME
    with _disk_failures():
        fault_point("model.write")
        skops.io.dump(pipeline, path)
        _flush(path)
    _check_trusted(path)
    artifact = _artifact(ArtifactFormat.SKOPS, path)
    if artifact.size_bytes > max_bytes:
        raise Refused(
            FailureReason.MODEL_TOO_LARGE,
            f"The model has {artifact.size_bytes:,} bytes, and {max_bytes:,} are allowed; use fewer or smaller trees, "
            "fewer rows, or another algorithm.",
        )
    return artifact


def _check_trusted(path: Path) -> None:
    """What could not be loaded again must not be stored: a setting led to a type that the list lacks."""
    unknown = set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED_TYPES)
    if unknown:
        raise RuntimeError(f"trusted_types lacks {', '.join(sorted(unknown))}")


def _artifact(format: ArtifactFormat, path: Path) -> Artifact:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(format, path.name, path.stat().st_size, sha256)


def _write(path: Path, content: bytes) -> None:
    with _disk_failures():
        fault_point("model.write")
        path.write_bytes(content)
        _flush(path)


@contextmanager
def _disk_failures() -> Iterator[None]:
    """A disk that fails is no defect of ours; that it is full is known by its number where failures are made."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Refused(
            FailureReason.DISK_FULL, "The disk could not be written (an input/output error); look after it."
        ) from error


def _flush(path: Path) -> None:
    fault_point("model.fsync")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: Exception) -> str:
    """The first line, shortened: converters print whole trees, and a later line may quote categories."""
    said = str(error).strip().partition("\n")[0]
    return f"The pipeline cannot be turned into a graph ({type(error).__name__}: {said[:_LONGEST_CAUSE]})."
