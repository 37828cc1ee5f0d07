"""A training through the service against the same work in a script. Budget: 1.05 times, plus 0.3 s.

The service's time is from StartTraining to the end of the watch, with a warm pool; the script is `benchmarks/script.py`
in a process that has imported its libraries. Both read the same Parquet file, and they take turns, each alone: before
the script's turn the run is recorded in MLflow and its model in DVC, which the service does after it has answered. The
first turn of each is left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from benchmarks.report import Figure, Measured, Say
from benchmarks.servers import MeasuredServer, serving
from easyml_client import EasyML

ROWS, COLUMNS, RUNS = 20_000, 20, 5
ALGORITHM = "random_forest"
FACTOR, SECONDS = 1.05, 0.3


def table() -> pd.DataFrame:
    """Two classes that a forest has to work for."""
    random = np.random.default_rng(0)
    values = random.normal(size=(ROWS, COLUMNS))
    frame = pd.DataFrame(values, columns=[f"x{index}" for index in range(COLUMNS)])
    frame["target"] = np.where(values[:, 0] * values[:, 1] + values[:, 2] + random.normal(size=ROWS) > 0, "yes", "no")
    return frame


def measure(say: Say) -> Measured:
    service, script = [], []
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(Path(scratch, "data"), workers="1") as server,
        EasyML(server.target, token=server.token) as client,
    ):
        project = client.projects.create("bench")
        dataset = client.datasets.upload(project, table(), name="bench")
        with by_hand(stored_table(server)) as asked:
            for run in range(RUNS + 1):
                service.append(through_the_service(client, project, dataset, Path(scratch)))
                script.append(asked())
                say(f"run {run} of {RUNS}: {service[-1]:.2f} s through the service, {script[-1]:.2f} s in the script")
    # Of neighbours, since the machine is not the same from minute to minute.
    over = statistics.median(ours - FACTOR * theirs for ours, theirs in zip(service[1:], script[1:], strict=True))
    return Measured(
        [
            Figure(
                f"training of a forest on {ROWS:,} rows: time beyond {FACTOR} x the same in a script",
                over,
                "s",
                at_most=SECONDS,
            )
        ],
        {
            "service_seconds": statistics.median(service[1:]),
            "script_seconds": statistics.median(script[1:]),
            "runs": RUNS,
        },
    )


def through_the_service(client: EasyML, project: Any, dataset: Any, scratch: Path) -> float:
    """Seconds of one training; returns when it is recorded, and versioned."""
    started = time.perf_counter()
    training = client.trainings.start(project, dataset=dataset, target="target", algorithm=ALGORITHM, seed=1)
    for _event in training.watch():
        pass
    took = time.perf_counter() - started
    version_id = training.result().model_version_id
    while client.experiments.get(training.id).mlflow_run_id is None:
        time.sleep(0.2)
    client.models.dvc(version_id, scratch / training.id)
    return took


def stored_table(server: MeasuredServer) -> Path:
    """The one table that was uploaded."""
    (path,) = (server.folder / "files").glob("*/datasets/*/table.parquet")
    return path


@contextmanager
def by_hand(table_path: Path) -> Iterator[Any]:
    """The script, ready: each call lets it work once and returns its seconds."""
    # As the workers have it: one thread, so that processes share the cores.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.script", str(table_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    stdin, stdout = _pipes(process)
    stdout.readline()

    def once() -> float:
        stdin.write("\n")
        stdin.flush()
        return float(stdout.readline())

    try:
        yield once
    finally:
        stdin.close()
        process.wait(60)


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
