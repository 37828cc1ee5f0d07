"""One experiment that was really trained, and as many copies of its row as a measurement wants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.full.places import execute
from easyml_client import EasyML
from easyml_server.repositories.sql.experiments import MLExperiment
from tests.servers import ServerProcess

ALGORITHMS, FAILED, COMMON, RARE = 15, 12, 10, 500
"""One in so many is of the algorithm, failed, carries the label."""
CHANGED = {
    "id": "gen_random_uuid()",
    "create_time": "create_time + make_interval(secs => number)",
    "algorithm": f"CASE WHEN number % {ALGORITHMS} = 0 THEN algorithm ELSE 'other-' || number % {ALGORITHMS} END",
    "state": f"CASE WHEN number % {FAILED} = 0 THEN 'failed' ELSE state END",
    "labels": f"jsonb_build_object('common', CASE WHEN number % {COMMON} = 0 THEN 'yes' ELSE 'no' END, "
    f"'rare', CASE WHEN number % {RARE} = 0 THEN 'yes' ELSE 'no' END)",
}


def trained(server: ServerProcess) -> tuple[str, str]:
    """A project of the local owner with one experiment; the ids of both."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(400, 4)), columns=list("abcd"))
    frame["target"] = frame.sum(axis=1) + random.normal(size=400)
    with EasyML(server.address, token=server.key) as client:
        project: Any = client.projects.create("bench")
        dataset = client.datasets.upload(project, frame, name="bench")
        training = client.trainings.start(project, dataset=dataset, target="target", algorithm="linear_regression")
        training.result()
        return project.id, training.id


def multiply(url: str, experiment_id: str, count: int) -> None:
    """So many copies in the same project, each a second younger than the last; made by the database."""
    names = MLExperiment.__table__.columns.keys()
    execute(
        url,
        (
            f"INSERT INTO ml_experiments ({', '.join(names)}) "
            f"SELECT {', '.join(CHANGED.get(name, name) for name in names)} "
            f"FROM ml_experiments, generate_series(1, {count}) AS number WHERE id = $1",
            experiment_id,
        ),
        ("VACUUM ANALYZE ml_experiments",),
    )
