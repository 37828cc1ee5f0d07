"""One-hot encoding as an ONNX graph, the way scikit-learn does it: rare and unseen categories share a column.

skl2onnx has a converter of its own, which refuses single columns with rare categories and fails on unseen ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from sklearn.preprocessing import OneHotEncoder


def register_one_hot() -> None:
    """Make skl2onnx use this converter; doing it again changes nothing."""
    update_registered_converter(OneHotEncoder, "SklearnOneHotEncoder", _shape, _convert, overwrite=True)


def columns_of_categories(encoder: OneHotEncoder) -> list[tuple[dict[str, int], int, int]]:
    """Per input of a fitted encoder: the output column of each category, that of any other, and the columns in all.

    Where nothing is rare, an unseen category has no column: its number is the count of columns, one too many.
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


def _shape(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    width = sum(count for _, _, count in columns_of_categories(operator.raw_operator))
    operator.outputs[0].type = FloatTensorType([rows, width])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Text to column number (LabelEncoder), column number to zeros and a one (OneHot); a number too large is all zeros."""
    values = _constant(scope, container, "values", TensorProto.FLOAT, [2], [0.0, 1.0])
    flat = _constant(scope, container, "flat", TensorProto.INT64, [1], [-1])
    encoded = []
    cells = _single_columns(scope, operator, container)
    for cell, (columns, other, count) in zip(cells, columns_of_categories(operator.raw_operator), strict=True):
        number, row, hot = (scope.get_unique_variable_name(name) for name in ("number", "row", "hot"))
        container.add_node(
            "LabelEncoder",
            cell,
            number,
            op_domain="ai.onnx.ml",
            op_version=2,
            name=scope.get_unique_operator_name("LabelEncoder"),
            keys_strings=[category.encode() for category in columns],
            values_int64s=list(columns.values()),
            default_int64=other,
        )
        container.add_node("Reshape", [number, flat], row, name=scope.get_unique_operator_name("Reshape"))
        depth = _constant(scope, container, "depth", TensorProto.INT64, [1], [count])
        container.add_node("OneHot", [row, depth, values], hot, name=scope.get_unique_operator_name("OneHot"), axis=1)
        encoded.append(hot)
    container.add_node(
        "Concat", encoded, operator.outputs[0].full_name, name=scope.get_unique_operator_name("Concat"), axis=1
    )


def _single_columns(scope: Any, operator: Any, container: Any) -> list[str]:
    """Names of tensors of one column each; inputs that arrive side by side are taken apart."""
    names = []
    for variable in operator.inputs:
        width = variable.type.shape[1]
        for column in range(width):
            if width == 1:
                names.append(variable.full_name)
                continue
            index = _constant(scope, container, "column", TensorProto.INT64, [1], [column])
            taken = scope.get_unique_variable_name("taken")
            container.add_node(
                "Gather",
                [variable.full_name, index],
                taken,
                name=scope.get_unique_operator_name("Gather"),
                axis=1,
            )
            names.append(taken)
    return names


def _constant(scope: Any, container: Any, name: str, type: int, shape: list[int], values: list[Any]) -> str:
    unique = str(scope.get_unique_variable_name(name))
    container.add_initializer(unique, type, shape, np.array(values))
    return unique
