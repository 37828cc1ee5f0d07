"""What a row takes is measured of the form that is served, and not for long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline

from easyml_server.ml import graphs, inference_time
from easyml_server.ml.export import FittedModel, make_graph
from easyml_server.ml.inference_time import MAX_ROWS, inference_time_ms
from tests.unit.ml.test_export import a_fitted_model


@pytest.fixture
def model() -> FittedModel:
    return a_fitted_model(Pipeline([("estimator", LinearRegression())]))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each question to the pipeline."""
    rows: list[int] = []
    ask = graphs.ask_pipeline

    def counted(pipeline: Pipeline, prepared: pd.DataFrame, **more: Any) -> graphs.Answers:
        rows.append(len(prepared))
        return ask(pipeline, prepared, **more)

    monkeypatch.setattr(graphs, "ask_pipeline", counted)
    return rows


def test_the_graph_is_asked_where_there_is_one(model: FittedModel, asked: list[int]) -> None:
    graph, parity = make_graph(model)
    assert graph is not None
    assert parity.proved
    asked.clear()
    assert inference_time_ms(model, graph.session) > 0
    assert asked == []


def test_the_pipeline_is_asked_row_by_row(
    model: FittedModel, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_time, "MAX_SECONDS", 60)
    assert inference_time_ms(model, None) > 0
    assert asked == [1] * (1 + len(model.probe))


def test_no_row_begins_once_the_time_is_over(
    model: FittedModel, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_time, "MAX_SECONDS", 0)
    assert inference_time_ms(model, None) > 0
    assert asked == [1, 1]


def test_it_is_the_median_of_so_many_rows(model: FittedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0] + [0, 1e-6] * MAX_ROWS).tolist())
    monkeypatch.setattr(inference_time.time, "perf_counter", lambda: next(clock))
    assert inference_time_ms(model, None) == pytest.approx(1e-3)
