"""A model under a name, and a second one that gets its calls step by step while somebody keeps asking.

Needs a running server with deployments, such as that of `make serve`: `python examples/10_deploy_and_canary.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from easyml_client import AlreadyExists, EasyML
from easyml_client.resources.deployments import Deployment
from easyml_client.resources.models import ModelVersion

PENGUINS = Path(__file__).with_name("data") / "penguins.csv"
PROJECT, NAME = "canary", "penguins"
ROW = {
    "island": "Biscoe",
    "bill_length_mm": 50.0,
    "bill_depth_mm": 15.2,
    "flipper_length_mm": 218,
    "body_mass_g": 5700,
    "sex": "male",
    "year": 2009,
}
CANARY = {
    "steps": [{"weight": 10, "durationSeconds": 3}, {"weight": 50, "durationSeconds": 3}],
    "analysis": {"maxErrorPercent": 1, "maxLatencyRatio": 20},
}


def main() -> None:
    with EasyML() as client:
        first, second = two_versions(client)
        deployment = client.deployments.create(PROJECT, NAME, first).result(timeout=120)
        print(f"{NAME} answers with {deployment.endpoints[0]}.")
        with Asking(client, deployment) as asking:
            rollout = client.deployments.update(deployment, second, canary=CANARY)
            for now in rollout.watch():
                print(f"  {now.state}: {shares(now)}")
                if now.settled or now.withdrawn:
                    break
        told = ", ".join(
            f"{count} by version {versions(first, second)[each]}" for each, count in asking.answered.items()
        )
        print(f"Calls answered: {told}; failed: {asking.failed}.")
        client.deployments.delete(deployment)
        if asking.failed:
            raise SystemExit(1)


def two_versions(client: EasyML) -> tuple[ModelVersion, ModelVersion]:
    """Two versions of one model."""
    try:
        client.projects.create(PROJECT)
    except AlreadyExists:
        client.projects.delete(PROJECT, force=True)
        client.projects.create(PROJECT)
    dataset = client.datasets.upload(PROJECT, PENGUINS)
    trained = [
        client.trainings.start(
            PROJECT, dataset=dataset, target="species", algorithm=algorithm, model_name="species"
        ).result()
        for algorithm in ("decision_tree", "logistic_regression")
    ]
    first, second = (client.models.get(each.model_version_id or "") for each in trained)
    return first, second


def versions(*known: ModelVersion) -> dict[str, int]:
    """Numbers by id."""
    return {each.id: each.version for each in known}


def shares(deployment: Deployment) -> str:
    """Who answers how many calls."""
    return (
        ", ".join(f"revision {each.revision} {each.weight} %" for each in deployment.traffic) or "nothing answers yet"
    )


class Asking:
    """Somebody who keeps asking in this block."""

    def __init__(self, client: EasyML, deployment: Deployment) -> None:
        self.answered: Counter[str] = Counter()
        self.failed = 0
        self._client = client
        self._deployment = deployment
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            try:
                answer = self._client.predictions.predict(self._deployment, ROW)
                self.answered[answer.model_version_id] += 1
            except Exception as error:
                print(f"  a call failed: {error}")
                self.failed += 1


if __name__ == "__main__":
    main()
