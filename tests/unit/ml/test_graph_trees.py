"""Graphs of trees and forests are those of skl2onnx, made faster."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from numpy.typing import NDArray
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common._registration import get_shape_calculator
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.operator_converters.decision_tree import (
    convert_sklearn_decision_tree_classifier,
    convert_sklearn_decision_tree_regressor,
)
from skl2onnx.operator_converters.random_forest import (
    convert_sklearn_random_forest_classifier,
    convert_sklearn_random_forest_regressor_converter,
)
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from easyml_server.ml import graphs
from easyml_server.ml.graph_trees import rounded_down

ROWS, COLUMNS = 300, 6
THEIRS = {
    RandomForestClassifier: convert_sklearn_random_forest_classifier,
    ExtraTreesClassifier: convert_sklearn_random_forest_classifier,
    DecisionTreeClassifier: convert_sklearn_decision_tree_classifier,
    RandomForestRegressor: convert_sklearn_random_forest_regressor_converter,
    ExtraTreesRegressor: convert_sklearn_random_forest_regressor_converter,
    DecisionTreeRegressor: convert_sklearn_decision_tree_regressor,
}
FORESTS = (RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor)


def a_model(kind: type[Any], labels: Any) -> Pipeline:
    settings = {"n_estimators": 7} if kind in FORESTS else {}
    prepare = ColumnTransformer([("numbers", "passthrough", list(range(COLUMNS)))])
    return Pipeline([("prepare", prepare), ("estimator", kind(random_state=0, **settings))]).fit(a_frame(0), labels)


def a_frame(seed: int) -> pd.DataFrame:
    """Thirds are no numbers of 32 bits, so what is rounded wrongly falls on the other side of a split."""
    values = np.random.default_rng(seed).integers(0, 9, (ROWS, COLUMNS)) / 3
    return pd.DataFrame(values, columns=[f"x{number}" for number in range(COLUMNS)])


def targets(kind: type[Any], form: str) -> NDArray[Any]:
    score = a_frame(0).to_numpy().sum(axis=1) + np.random.default_rng(1).normal(size=ROWS)
    codes = (
        np.digitize(score, np.quantile(score, [0.3, 0.6])) if form == "three" else (score > score.mean()).astype(int)
    )
    match form:
        case "numbers":
            return np.asarray(score)
        case "whole":
            return codes * 10
        case "truth":
            return codes > 0
    return np.array(["low", "middle", "high"], dtype=object)[codes]


def theirs(model: Pipeline, frame: pd.DataFrame) -> list[NDArray[Any]]:
    """What the graph of skl2onnx's own converters says."""
    estimator = model[-1]
    alias = f"Sklearn{type(estimator).__name__}"
    names = ("decision_path", "decision_leaf")
    names += ("zipmap", "nocl", "raw_scores") if hasattr(estimator, "classes_") else ()
    words = {name: [True, False] for name in names}
    update_registered_converter(
        type(estimator), alias, get_shape_calculator(alias), THEIRS[type(estimator)], options=words, overwrite=True
    )
    graph = convert_sklearn(
        estimator,
        initial_types=[("x", FloatTensorType([None, COLUMNS]))],
        options={id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None,
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    return list(graphs.open_graph(graph.SerializeToString()).run(None, {"x": frame.to_numpy(np.float32)}))


CLASSIFIERS = [kind for kind in THEIRS if kind.__name__.endswith("Classifier")]
REGRESSORS = [kind for kind in THEIRS if kind.__name__.endswith("Regressor")]


@pytest.mark.parametrize("form", ["two", "three", "whole", "truth"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_answers_as_in_skl2onnx(kind: type[Any], form: str) -> None:
    model, asked = a_model(kind, targets(kind, form)), a_frame(2)
    expected, probabilities = theirs(model, asked)
    ours = graphs.ask_graph(graphs.open_graph(graphs.convert(model, asked, probabilities=True)), asked)
    assert ours.predictions.tolist() == expected.tolist()
    assert ours.probabilities is not None
    np.testing.assert_array_equal(ours.probabilities.astype(np.float32), probabilities)
    assert set(ours.predictions.tolist()) == set(targets(kind, form).tolist())


@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_regressor_answers_as_in_skl2onnx(kind: type[Any]) -> None:
    model, asked = a_model(kind, targets(kind, "numbers")), a_frame(2)
    (expected,) = theirs(model, asked)
    ours = graphs.ask_graph(graphs.open_graph(graphs.convert(model, asked, probabilities=False)), asked)
    np.testing.assert_array_equal(ours.predictions, expected.ravel())
    np.testing.assert_allclose(ours.predictions, model.predict(asked), rtol=1e-6)


def test_trees_within_another_ensemble_are_converted_too() -> None:
    model, asked = a_model(AdaBoostClassifier, targets(AdaBoostClassifier, "three")), a_frame(2)
    graph = graphs.convert(model, asked, probabilities=True)
    nodes = onnx.load_model_from_string(graph).graph.node
    trees = [node for node in nodes if node.op_type == "TreeEnsembleClassifier"]
    assert len(trees) == len(model[-1].estimators_)
    assert graphs.ask_graph(graphs.open_graph(graph), asked).predictions.tolist() == model.predict(asked).tolist()


def test_a_graph_in_64_bits_is_refused_since_the_trees_were_fitted_on_32() -> None:
    model = a_model(RandomForestRegressor, targets(RandomForestRegressor, "numbers"))
    with pytest.raises(ValueError, match="32 bits"):
        graphs.convert(model, a_frame(2), probabilities=False, double=True)


def test_thresholds_are_rounded_so_that_every_32_bit_number_stays_on_its_side() -> None:
    thresholds = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-20, 20).repeat(25)
    rounded = rounded_down(thresholds)
    assert rounded.dtype == np.float32
    assert (rounded <= thresholds).all()
    assert (np.nextafter(rounded, np.float32(np.inf)) > thresholds).all()
