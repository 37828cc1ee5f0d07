"""How long a fitted model takes for one row, in the form that will be served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Final

import onnxruntime

from easyml_server.ml import graphs
from easyml_server.ml.export import FittedModel
from easyml_server.ml.prepare import graph_inputs

MAX_ROWS: Final = 50
MAX_SECONDS: Final = 0.05


def inference_time_ms(model: FittedModel, session: onnxruntime.InferenceSession | None) -> float:
    """The median of test rows that are asked one by one, of the graph if there is one, else of the pipeline.

    Rows are prepared before, as a model server has them from the request. No row begins after MAX_SECONDS.
    """
    # The first one pays for what is set up once.
    _question(model, session, 0)()
    return median(_seconds(model, session)) * 1000


def _seconds(model: FittedModel, session: onnxruntime.InferenceSession | None) -> Iterator[float]:
    end = time.perf_counter() + MAX_SECONDS
    for number in range(min(len(model.probe), MAX_ROWS)):
        ask = _question(model, session, number)
        start = time.perf_counter()
        ask()
        now = time.perf_counter()
        yield now - start
        if now > end:
            return


def _question(model: FittedModel, session: onnxruntime.InferenceSession | None, number: int) -> Callable[[], object]:
    row = model.probe.iloc[number : number + 1]
    if session is None:
        probabilities = model.signature.predicts_probabilities
        return partial(graphs.ask_pipeline, model.pipeline, row, probabilities=probabilities)
    arguments = [(argument.name, argument.type) for argument in session.get_inputs()]
    return partial(session.run, None, graph_inputs(row, arguments))
