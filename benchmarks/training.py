"""A training through the service against the same fit in a script. Budget: 1.05 times, plus 0.3 s.

The script is a process that has imported the libraries and read nothing yet; it runs the same function on the same
Parquet file. The service's time is from StartTraining to the `finished` event, with a warm pool.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from benchmarks.servers import MeasuredServer, serving
from easyml_client import EasyML
from easyml_server.domain.training import TrainingJob
from easyml_server.repositories.sql.store import open_sqlite
from easyml_server.trainers.codec import encode_job

ROWS, COLUMNS, RUNS = 20_000, 20, 3
ALGORITHM = "random_forest"

SCRIPT = """
import sys, time, json, tempfile
from pathlib import Path
from easyml_server.ml.training import train
from easyml_server.trainers.codec import decode_job
import dataclasses
job = decode_job(Path(sys.argv[1]).read_bytes())
seconds = []
for _ in range(int(sys.argv[2])):
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        outcome = train(dataclasses.replace(job, output_path=folder), lambda report: None)
        seconds.append(time.perf_counter() - started)
        assert outcome.type == "succeeded", outcome
print(json.dumps(seconds))
"""


def table() -> pd.DataFrame:
    """Two classes that a forest has to work for."""
    random = np.random.default_rng(0)
    values = random.normal(size=(ROWS, COLUMNS))
    frame = pd.DataFrame(values, columns=[f"x{index}" for index in range(COLUMNS)])
    frame["target"] = np.where(values[:, 0] * values[:, 1] + values[:, 2] + random.normal(size=ROWS) > 0, "yes", "no")
    return frame


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch, "data"), workers="1") as server:
        service, job = through_the_service(server)
        path = Path(scratch, "job.json")
        path.write_bytes(job)
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        script = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path), str(RUNS)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        alone = json.loads(script.stdout)
    service_seconds, script_seconds = statistics.median(service), statistics.median(alone)
    return {
        "service_seconds": service_seconds,
        "script_seconds": script_seconds,
        "over_budget_seconds": service_seconds - (1.05 * script_seconds + 0.3),
        "ratio": service_seconds / script_seconds,
        "rows": ROWS,
        "columns": COLUMNS,
        "algorithm": ALGORITHM,
        "runs": RUNS,
    }


def through_the_service(server: MeasuredServer) -> tuple[list[float], bytes]:
    """Seconds of each run, and the job that the worker was given."""
    seconds = []
    with EasyML(server.target, token=server.token) as client:
        project = client.projects.create("bench")
        dataset = client.datasets.upload(project, table(), name="bench")
        for _ in range(RUNS + 1):
            started = time.perf_counter()
            training = client.trainings.start(project, dataset=dataset, target="target", algorithm=ALGORITHM, seed=1)
            for _event in training.watch():
                pass
            seconds.append(time.perf_counter() - started)
            training.result()

    # The first run waits for the pool to be warm.
    return seconds[1:], asyncio.run(job_of(server.folder, UUID(training.id)))


async def job_of(folder: Path, experiment_id: UUID) -> bytes:
    """What the worker of an experiment was told."""
    store = open_sqlite(str(folder / "easyml.db"))
    try:
        async with store.read() as work:
            experiment = await work.experiments.load(experiment_id)
            version = await work.datasets.get_version(experiment.spec.dataset_version_id)
    finally:
        await store.close()
    table_path = folder / "files" / str(experiment.project_id) / "datasets" / str(version.id) / "table.parquet"
    return encode_job(
        TrainingJob(experiment.id, experiment.spec, version.schema, str(table_path), "", 1 << 33, 1 << 30)
    )
