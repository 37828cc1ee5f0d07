"""Turns a fitted pipeline into an ONNX graph and proves that both predict the same.

A graph takes the prepared columns (`ml.prepare`) in their order, each as a tensor [rows, 1] of text or of float (double
where 32 bits did not do, as for linear models with strongly correlated columns); an input
has the name of its column unless the graph needs that name for itself, so feed by position. It gives `prediction`
(the class, or the number) and, where the model has them, `probabilities` [rows, classes].
"""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from onnx import helper
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from easyml_server.domain.models import Parity
from easyml_server.ml.estimators import answers_most_probable
from easyml_server.ml.graph_converters import register_converters
from easyml_server.ml.graph_trees import converts as converts_trees
from easyml_server.ml.prepare import graph_inputs

PREDICTION: Final = "prediction"
PROBABILITIES: Final = "probabilities"
# Probabilities may differ by this; numbers by this share of the target's standard deviation.
TOLERANCE: Final = 1e-4
# What all converters used here write, and onnxruntime reads.
_OPSETS: Final = {"": 18, "ai.onnx.ml": 3}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says about rows."""

    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None


def convert(pipeline: Pipeline, prepared: pd.DataFrame, *, probabilities: bool, double: bool = False) -> bytes:
    """The graph of a fitted pipeline; any exception means that there is none, and its text says why.

    With `double` it computes in 64 bits where its operators can.
    """
    from skl2onnx import convert_sklearn

    trees = register_converters(double=double)
    inputs = [(f"c{number}", _tensor_type(prepared[name], double)) for number, name in enumerate(prepared.columns)]
    # The converters print and warn at will.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = convert_sklearn(pipeline, initial_types=inputs, target_opset=dict(_OPSETS), options=_options(pipeline))
    _keep_outputs(model.graph, [PREDICTION, PROBABILITIES] if probabilities else [PREDICTION])
    _name_inputs(model.graph, list(prepared.columns))
    onnx.checker.check_model(model)
    # After the check, which copies all that it looks at and knows nothing of trees.
    trees.plant(model.graph)
    data: bytes = model.SerializeToString()
    return data


def open_graph(data: bytes) -> onnxruntime.InferenceSession:
    """A session with one thread and no output of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def ask_graph(session: onnxruntime.InferenceSession, prepared: pd.DataFrame) -> Answers:
    """Predictions of a graph."""
    arguments = [(argument.name, argument.type) for argument in session.get_inputs()]
    outputs = session.run(None, graph_inputs(prepared, arguments))
    probabilities = np.asarray(outputs[1], dtype=np.float64) if len(outputs) > 1 else None
    return Answers(np.asarray(outputs[0]).ravel(), probabilities)


def ask_pipeline(pipeline: Pipeline, prepared: pd.DataFrame, *, probabilities: bool) -> Answers:
    """Predictions of a pipeline."""
    given = np.asarray(pipeline.predict_proba(prepared), dtype=np.float64) if probabilities else None
    if given is not None and answers_most_probable(pipeline[-1]):
        return Answers(pipeline.classes_.take(given.argmax(axis=1)), given)
    return Answers(np.asarray(pipeline.predict(prepared)), given)


def compare(expected: Answers, actual: Answers, deviation: float) -> Parity:
    """Whether a graph's answers are the pipeline's; `deviation` of the target makes numbers comparable, 0 for classes.

    Classes must be equal, each of them, and probabilities within TOLERANCE. Numbers must be within TOLERANCE times the
    target's standard deviation, or, where they are larger, within TOLERANCE of themselves (32 bits hold no more).
    """
    rows = len(expected.predictions)
    if deviation:
        difference = np.abs(actual.predictions.astype(np.float64) - expected.predictions)
        allowed = TOLERANCE * np.maximum(deviation, np.abs(expected.predictions) * 1e-2)
        differing = int((~(difference <= allowed)).sum())
        return _parity(rows, differing, float(difference.max()))
    unequal = actual.predictions.astype(expected.predictions.dtype) != expected.predictions
    difference = _difference(expected, actual)
    return _parity(rows, int((unequal | ~(difference <= TOLERANCE)).sum()), float(difference.max()))


def _difference(expected: Answers, actual: Answers) -> NDArray[np.float64]:
    if expected.probabilities is None or actual.probabilities is None:
        return np.zeros(len(expected.predictions))
    return np.asarray(np.abs(expected.probabilities - actual.probabilities).max(axis=1))


def _parity(rows: int, differing: int, largest: float) -> Parity:
    if not differing:
        return Parity(proved=True, rows=rows, max_difference=largest)
    largest = largest if np.isfinite(largest) else float(np.finfo(np.float64).max)
    return Parity(
        proved=False,
        rows=rows,
        max_difference=largest,
        cause=f"The graph predicts otherwise for {differing} of {rows} rows (largest difference {largest:.3g}).",
    )


def _tensor_type(column: pd.Series[Any], double: bool) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    number = DoubleTensorType if double else FloatTensorType
    return StringTensorType([None, 1]) if column.dtype == object else number([None, 1])


def _options(pipeline: Pipeline) -> dict[int, dict[str, Any]] | None:
    estimator = pipeline[-1]
    if converts_trees(estimator) or not hasattr(estimator, "classes_"):
        return None
    if hasattr(estimator, "predict_proba"):
        return {id(estimator): {"zipmap": False}}
    # The linear machine's converter knows nothing of zipping and says so by an error.
    zipped = {} if isinstance(estimator, LinearSVC) else {"zipmap": False}
    return {id(estimator): {**zipped, "raw_scores": True}}


def _keep_outputs(graph: Any, names: list[str]) -> None:
    """Keep the first outputs, under these names: each converter has its own, and some give decision values too."""
    kept = list(graph.output)[: len(names)]
    del graph.output[:]
    taken = _names_in(graph)
    for output, name in zip(kept, names, strict=True):
        if output.name != name:
            inner = output.name
            if name in taken:
                raise ValueError(f"the converter uses the name {name} for something else")
            graph.node.append(helper.make_node("Identity", [inner], [name], name=f"give_{name}"))
        output.name = name
        graph.output.append(output)


def _name_inputs(graph: Any, columns: list[str]) -> None:
    taken = _names_in(graph)
    named = []
    for value, column in zip(graph.input, columns, strict=True):
        if not column or column in taken:
            continue
        named.append(helper.make_node("Identity", [column], [value.name], name=f"take_{value.name}"))
        value.name = column
    nodes = [*named, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _names_in(graph: Any) -> set[str]:
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.input)
        names.update(node.output)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names |= _names_in(attribute.g)
    return names
