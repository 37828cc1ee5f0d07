"""The two models that all serve: trained by EasyML on mixed columns, stored as a graph and as a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.predict import TREES, table
from benchmarks.servers import MeasuredServer
from easyml_client import EasyML

ALGORITHMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "logistic_regression": {},
    "random_forest": {"n_estimators": TREES, "max_depth": 10},
}


PROJECT: Final = "bench"


@dataclass(frozen=True)
class Stored:
    """A stored model version."""

    name: str
    version_id: str
    folder: Path


def trained(server: MeasuredServer) -> list[Stored]:
    """One of each algorithm."""
    with EasyML(server.target, token=server.token) as client:
        project = client.projects.create(PROJECT)
        dataset = client.datasets.upload(project, table(), name="bench")
        stored = []
        for algorithm, hyperparameters in ALGORITHMS.items():
            training = client.trainings.start(
                project,
                dataset=dataset,
                target="target",
                algorithm=algorithm,
                seed=1,
                hyperparameters=dict(hyperparameters),
            )
            for _event in training.watch():
                pass
            version_id = training.result().model_version_id
            folder = server.folder / "files" / project.id / "models" / version_id
            stored.append(Stored(algorithm, version_id, folder))
    return stored
