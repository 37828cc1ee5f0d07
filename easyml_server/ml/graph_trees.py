"""The converters to ONNX of scikit-learn's trees and forests: whole arrays at once.

skl2onnx walks through trees node by node in Python and copies what it has several times, which takes half as long as
the fit that grew them. Here it gets operators without their trees, which are put in when all else is done; the graphs
are the same (docs/decisions/0006-what-a-training-costs.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

_DOMAIN: Final = "ai.onnx.ml"
_CLASSIFIERS: Final = (RandomForestClassifier, ExtraTreesClassifier, DecisionTreeClassifier)
_REGRESSORS: Final = (RandomForestRegressor, ExtraTreesRegressor, DecisionTreeRegressor)
_OPTIONS: Final = {"nocl": [True, False], "raw_scores": [True, False], "zipmap": [True, False]}


class TreeConverters:
    """The converters for one graph: they remember the trees of each operator until `plant`."""

    def __init__(self) -> None:
        self._attributes: dict[str, dict[str, NDArray[Any]]] = {}

    def register(self) -> None:
        """Make them known to skl2onnx, in place of its own."""
        from skl2onnx import update_registered_converter
        from skl2onnx.common._registration import get_shape_calculator

        for kind in (*_CLASSIFIERS, *_REGRESSORS):
            alias = f"Sklearn{kind.__name__}"
            is_classifier = kind in _CLASSIFIERS
            update_registered_converter(
                kind,
                alias,
                get_shape_calculator(alias),
                self._convert_classifier if is_classifier else self._convert_regressor,
                parser=_parse,
                options=_OPTIONS if is_classifier else None,
                overwrite=True,
            )

    def plant(self, graph: Any) -> None:
        """Give the operators of a converted graph their trees."""
        for node in graph.node:
            for name, values in self._attributes.pop(node.name, {}).items():
                _set(node.attribute.add(name=name), values)
        if self._attributes:
            raise RuntimeError("operators of trees were renamed")

    def _convert_classifier(self, scope: Any, operator: Any, container: Any) -> None:
        """The share of each class among the rows of a leaf, averaged over the trees; of two classes the second's."""
        from skl2onnx.common.utils_classifier import get_label_classes

        labels = _labels(get_label_classes(scope, operator.raw_operator))
        trees = _trees(operator)
        shares = trees.value / trees.value.sum(axis=1, keepdims=True) / trees.count
        told = shares[:, 1:] if shares.shape[1] == 2 else shares  # noqa: PLR2004 (two classes)
        name = _add_node(scope, operator, container, "TreeEnsembleClassifier", **labels)
        self._attributes[name] = trees.attributes() | trees.weights("class", told)

    def _convert_regressor(self, scope: Any, operator: Any, container: Any) -> None:
        """The mean of the rows of a leaf, averaged over the trees."""
        trees = _trees(operator)
        name = _add_node(scope, operator, container, "TreeEnsembleRegressor", n_targets=1)
        self._attributes[name] = trees.attributes() | trees.weights("target", trees.value / trees.count)


def converts(model: Any) -> bool:
    """Whether it is converted here, and so without options: for these skl2onnx would walk twice through all trees."""
    return isinstance(model, (*_CLASSIFIERS, *_REGRESSORS))


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Outputs as they are: the parser of classifiers would zip them, unless an option says otherwise."""
    from skl2onnx._parse import _parse_sklearn_simple_model

    return _parse_sklearn_simple_model(scope, model, inputs, custom_parsers)


@dataclass(frozen=True, slots=True)
class _Trees:
    """The nodes of all trees, one tree after the other; children are numbered within their tree."""

    count: int
    tree: NDArray[np.int64]
    node: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    value: NDArray[np.float64]

    @classmethod
    def of(cls, model: Any) -> Self:
        trees = [each.tree_ for each in getattr(model, "estimators_", [model])]
        counts = [tree.node_count for tree in trees]
        return cls(
            len(trees),
            np.repeat(np.arange(len(trees)), counts),
            np.concatenate([np.arange(count) for count in counts]),
            np.concatenate([tree.children_left for tree in trees]),
            np.concatenate([tree.children_right for tree in trees]),
            np.concatenate([tree.feature for tree in trees]),
            np.concatenate([tree.threshold for tree in trees]),
            np.concatenate([tree.value[:, 0, :] for tree in trees]),
        )

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        return self.left < 0

    def attributes(self) -> dict[str, NDArray[Any]]:
        """Where each node splits, as operators of tree ensembles take it."""
        is_leaf = self.is_leaf
        return {
            "nodes_treeids": self.tree,
            "nodes_nodeids": self.node,
            "nodes_featureids": np.where(is_leaf, 0, self.feature),
            "nodes_modes": np.where(is_leaf, b"LEAF", b"BRANCH_LEQ"),
            "nodes_values": np.where(is_leaf, 0, rounded_down(self.threshold)),
            "nodes_truenodeids": np.where(is_leaf, 0, self.left),
            "nodes_falsenodeids": np.where(is_leaf, 0, self.right),
        }

    def weights(self, prefix: str, weights: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """What each leaf adds to each score, given for all nodes; what adds nothing is left out where others add."""
        told = self.is_leaf[:, np.newaxis] & ((weights != 0) | (weights.shape[1] == 1))
        nodes, scores = np.nonzero(told)
        return {
            f"{prefix}_treeids": self.tree[nodes],
            f"{prefix}_nodeids": self.node[nodes],
            f"{prefix}_ids": scores,
            f"{prefix}_weights": weights[nodes, scores],
        }


def _trees(operator: Any) -> _Trees:
    from skl2onnx.common.data_types import FloatTensorType

    model = operator.raw_operator
    if model.n_outputs_ != 1 or not isinstance(operator.inputs[0].type, FloatTensorType):
        raise ValueError("Trees with one target and inputs of 32 bits are converted, no others.")
    return _Trees.of(model)


def _add_node(scope: Any, operator: Any, container: Any, kind: str, **attributes: Any) -> str:
    """Add an operator without its trees; its name."""
    name = str(scope.get_unique_operator_name(kind))
    container.add_node(
        kind,
        operator.input_full_names,
        [output.full_name for output in operator.outputs],
        op_domain=_DOMAIN,
        name=name,
        post_transform="NONE",
        **attributes,
    )
    return name


def _set(attribute: Any, values: NDArray[Any]) -> None:
    match values.dtype.kind:
        case "i":
            attribute.type = AttributeProto.INTS
            attribute.ints.extend(values.tolist())
        case "f":
            attribute.type = AttributeProto.FLOATS
            attribute.floats.extend(values.tolist())
        case _:
            attribute.type = AttributeProto.STRINGS
            attribute.strings.extend(values.tolist())


def _labels(classes: NDArray[Any]) -> dict[str, list[Any]]:
    if classes.dtype.kind in "iub":
        return {"classlabels_int64s": classes.astype(np.int64).tolist()}
    return {"classlabels_strings": [str(label) for label in classes]}


def rounded_down(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest numbers of 32 bits that are no larger: `x <= threshold` says the same of every x of 32 bits."""
    nearest = threshold.astype(np.float32)
    return np.where(nearest > threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)
