"""The preprocessing steps as ONNX graphs, the way scikit-learn does them.

skl2onnx has converters of its own, but its one-hot encoding refuses single columns with rare categories and fails on
unseen ones, and its imputation knows 32 bits only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder


def register_preprocessing(*, double: bool) -> None:
    """Make skl2onnx use these converters, in 64 bits or 32; the latest call counts."""
    number = _Number(double)
    update_registered_converter(
        OneHotEncoder, "SklearnOneHotEncoder", number.one_hot_shape, number.one_hot, overwrite=True
    )
    update_registered_converter(
        SimpleImputer, "SklearnSimpleImputer", number.imputed_shape, number.imputed, overwrite=True
    )


def columns_of_categories(encoder: OneHotEncoder) -> list[tuple[dict[str, int], int, int]]:
    """Per input of a fitted encoder: the output column of each category, that of any other, and the columns in all.

    Rare categories share the last column with unseen ones. Where nothing is rare an unseen category has no column: its
    number is the count of columns, one too many.
    """
    return [
        _columns(categories, rare)
        for categories, rare in zip(encoder.categories_, encoder.infrequent_categories_, strict=True)
    ]


def _columns(categories: NDArray[Any], rare: NDArray[Any] | None) -> tuple[dict[str, int], int, int]:
    together = set() if rare is None else set(rare.tolist())
    frequent = [category for category in categories.tolist() if category not in together]
    columns = {category: column for column, category in enumerate(frequent)}
    columns.update(dict.fromkeys(sorted(together), len(frequent)))
    return columns, len(frequent), len(frequent) + bool(together)


class _Number:
    """Converters for one width of numbers."""

    def __init__(self, double: bool) -> None:
        self._tensor = DoubleTensorType if double else FloatTensorType
        self._type = TensorProto.DOUBLE if double else TensorProto.FLOAT

    def one_hot_shape(self, operator: Any) -> None:
        rows = operator.inputs[0].get_first_dimension()
        width = sum(count for _, _, count in columns_of_categories(operator.raw_operator))
        operator.outputs[0].type = self._tensor([rows, width])

    def one_hot(self, scope: Any, operator: Any, container: Any) -> None:
        """Text to column number (LabelEncoder), number to zeros and a one (OneHot); too large a number is all zeros."""
        graph = _Nodes(scope, container)
        values = graph.constant(TensorProto.FLOAT, [0.0, 1.0])
        flat = graph.constant(TensorProto.INT64, [-1])
        encoded = []
        cells = [cell for variable in operator.inputs for cell in graph.columns_of(variable)]
        for cell, (columns, other, count) in zip(cells, columns_of_categories(operator.raw_operator), strict=True):
            number = graph.add(
                "LabelEncoder",
                [cell],
                op_domain="ai.onnx.ml",
                op_version=2,
                keys_strings=[category.encode() for category in columns],
                values_int64s=list(columns.values()),
                default_int64=other,
            )
            row = graph.add("Reshape", [number, flat])
            encoded.append(graph.add("OneHot", [row, graph.constant(TensorProto.INT64, [count]), values], axis=1))
        # ONNX Runtime makes zeros and ones of 32 bits only.
        graph.add("Cast", [graph.add("Concat", encoded, axis=1)], operator.outputs[0].full_name, to=self._type)

    def imputed_shape(self, operator: Any) -> None:
        rows = operator.inputs[0].get_first_dimension()
        operator.outputs[0].type = self._tensor([rows, len(operator.raw_operator.statistics_)])

    def imputed(self, scope: Any, operator: Any, container: Any) -> None:
        """NaN becomes the column's statistic."""
        graph = _Nodes(scope, container)
        names = [variable.full_name for variable in operator.inputs]
        cells = names[0] if len(names) == 1 else graph.add("Concat", names, axis=1)
        statistics = graph.constant(self._type, operator.raw_operator.statistics_.tolist())
        missing = graph.add("IsNaN", [cells])
        graph.add("Where", [missing, statistics, cells], operator.outputs[0].full_name)


class _Nodes:
    """Adds nodes and constants under names of their own."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope = scope
        self._container = container

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or str(self._scope.get_unique_variable_name(operator.lower()))
        name = self._scope.get_unique_operator_name(operator)
        self._container.add_node(operator, inputs, output, name=name, **attributes)
        return output

    def constant(self, type: int, values: list[Any]) -> str:
        """Add a constant vector and return its name."""
        name = str(self._scope.get_unique_variable_name("constant"))
        self._container.add_initializer(name, type, [len(values)], np.array(values))
        return name

    def columns_of(self, variable: Any) -> list[str]:
        """Names of tensors of one column each; columns that arrive side by side are taken apart."""
        width = variable.type.shape[1]
        if width == 1:
            return [variable.full_name]
        return [
            self.add("Gather", [variable.full_name, self.constant(TensorProto.INT64, [column])], axis=1)
            for column in range(width)
        ]
