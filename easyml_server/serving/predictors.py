"""The two stored forms of a model, made ready to predict: an ONNX graph, or a scikit-learn pipeline.

Both take the prepared blocks of a table. Files are read once, and what was read is hashed, so that what is loaded is
what the manifest says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from easyml_server.domain.manifest import MANIFEST_FILENAME, BadManifest, load_manifest
from easyml_server.domain.models import Artifact, ArtifactFormat, ModelManifest
from easyml_server.ml.prepare import graph_inputs
from easyml_server.ml.trusted_types import TRUSTED_TYPES
from easyml_server.serving.layout import Layout, PreparedBlock

PREDICTION: Final = "prediction"
PROBABILITIES: Final = "probabilities"


class CannotLoad(Exception):
    """A stored model that cannot be served; the sentence says why."""


class CannotFetch(CannotLoad):
    """One whose files cannot be had from where they are."""


class Answers(NamedTuple):
    """What a model says about rows: a value each, and the probabilities of the classes [rows, classes]."""

    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None

    def part(self, start: int, end: int) -> Answers:
        """What it says about some of the rows."""
        probabilities = None if self.probabilities is None else self.probabilities[start:end]
        return Answers(self.predictions[start:end], probabilities)


class Run:
    """One run of a model, which may be told to stop."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    def stop(self) -> None:
        """A graph ends after the operator it is at; a pipeline cannot be stopped, only left alone."""
        self.options.terminate = True


class Predictor(Protocol):
    """A model in memory."""

    def predict(self, blocks: Sequence[PreparedBlock], rows: int, run: Run | None) -> Answers:
        """Predictions for prepared rows; called from several threads."""
        ...


class GraphPredictor:
    """An ONNX graph in ONNX Runtime, with one thread."""

    def __init__(self, graph: bytes, layout: Layout, *, probabilities: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises a class for each of its states
            raise CannotLoad("its ONNX graph cannot be opened") from error
        self._outputs = [PREDICTION, PROBABILITIES] if probabilities else [PREDICTION]
        self._inputs = _by_block([(each.name, each.type) for each in self._session.get_inputs()], layout)

    def predict(self, blocks: Sequence[PreparedBlock], rows: int, run: Run | None) -> Answers:
        """See Predictor."""
        feeds: dict[str, NDArray[Any]] = {}
        for prepared, (types, names) in zip(blocks, self._inputs, strict=True):
            tensors = graph_inputs(prepared.parts, types)
            for part, tensor in zip(names, tensors.values(), strict=True):
                # One tensor [rows, 1] per column, without copying.
                feeds.update(zip(part, tensor.reshape(len(part), rows, 1), strict=True))
        outputs = self._session.run(self._outputs, feeds, run.options if run else None)
        probabilities = np.asarray(outputs[1], dtype=np.float64) if len(outputs) > 1 else None
        return Answers(np.asarray(outputs[0]).ravel(), probabilities)


_Inputs = tuple[list[tuple[str, str]], list[list[str]]]
"""Of a block: per part an argument that stands for all, and the names of all, one per column."""


def _by_block(arguments: Sequence[tuple[str, str]], layout: Layout) -> list[_Inputs]:
    """A graph's arguments, which are in the order of the prepared columns, as the blocks have them."""
    if len(arguments) != len(layout.prepared_names):
        raise CannotLoad("its ONNX graph takes other columns than its signature")
    by_name = dict(zip(layout.prepared_names, arguments, strict=True))
    inputs: list[_Inputs] = []
    for block in layout.blocks:
        parts = [[by_name[name] for name in part] for part in zip(*block.names, strict=True)]
        if any(len({tensor for _, tensor in part}) != 1 for part in parts):
            raise CannotLoad("its ONNX graph takes columns of one kind in different types")
        types = [part[0] for part in parts]
        inputs.append((types, [[name for name, _ in part] for part in parts]))
    return inputs


class PipelinePredictor:
    """A stored scikit-learn pipeline."""

    def __init__(self, pipeline: Any, layout: Layout, *, probabilities: bool) -> None:
        self._pipeline = pipeline
        self._layout = layout
        self._probabilities = probabilities

    def predict(self, blocks: Sequence[PreparedBlock], rows: int, _run: Run | None) -> Answers:
        """See Predictor."""
        frame = self._frame(blocks, rows)
        given = np.asarray(self._pipeline.predict_proba(frame), np.float64) if self._probabilities else None
        return Answers(np.asarray(self._pipeline.predict(frame)).ravel(), given)

    def _frame(self, blocks: Sequence[PreparedBlock], rows: int) -> Any:
        import pandas as pd

        columns: dict[str, NDArray[Any]] = {}
        for prepared in blocks:
            for number, names in enumerate(prepared.block.names):
                for name, part in zip(names, prepared.parts.values(), strict=True):
                    columns[name] = part[number * rows : (number + 1) * rows]
        # An explicit type: else pandas makes its own text type of text, whose missing value is not ours.
        return pd.DataFrame(
            {name: pd.Series(columns[name], dtype=columns[name].dtype) for name in self._layout.prepared_names}
        )


def read_manifest(folder: Path) -> ModelManifest:
    """The manifest in a version's folder."""
    try:
        return load_manifest((folder / MANIFEST_FILENAME).read_bytes())
    except OSError as error:
        raise CannotLoad(f"{MANIFEST_FILENAME} cannot be read") from error
    except BadManifest as error:
        raise CannotLoad(f"{MANIFEST_FILENAME} is damaged: {error}") from error


def load_predictor(folder: Path, manifest: ModelManifest, layout: Layout) -> Predictor:
    """What predicts, read and checked."""
    artifact = manifest.served
    if artifact is None:
        raise CannotLoad("it is stored neither as an ONNX graph nor as a skops pipeline")
    content, probabilities = _read(folder, artifact), manifest.signature.predicts_probabilities
    if artifact.format is ArtifactFormat.ONNX:
        return GraphPredictor(content, layout, probabilities=probabilities)
    return PipelinePredictor(_load_pipeline(content), layout, probabilities=probabilities)


def _read(folder: Path, artifact: Artifact) -> bytes:
    try:
        content = (folder / artifact.filename).read_bytes()
    except OSError as error:
        raise CannotLoad(f"{artifact.filename} cannot be read") from error
    if hashlib.sha256(content).hexdigest() != artifact.sha256:
        raise CannotLoad(f"{artifact.filename} is not the file that was stored (SHA-256)")
    return content


def _load_pipeline(content: bytes) -> Any:
    # Four seconds to import, so only where there is no graph.
    import skops.io

    try:
        return skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    except Exception as error:  # whatever the file makes the library raise
        raise CannotLoad("its pipeline holds something that is not trusted, or cannot be read") from error
