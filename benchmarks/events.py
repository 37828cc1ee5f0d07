"""An event from the server's log to 200 watchers of several users. Budget: p99 at most 100 ms.

Measured from the moment the server takes the event from the worker (its `event_time`) to the moment a watcher has it,
commit included; server and watchers run on this machine, so there is one clock.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.servers import serving
from benchmarks.training import table
from easyml_client import AsyncEasyML, EasyML
from easyml_client.resources.events import IterationCompleted

USERS, WATCHERS_A_USER = 4, 50
PASSWORD = "a long enough pass phrase"


async def watch(target: str, token: str, experiment: str) -> list[float]:
    """Milliseconds each event took to each of one user's watchers."""
    async with AsyncEasyML(target, token=token) as client:

        async def one() -> list[float]:
            delays = []
            async for event in client.trainings.watch(experiment):
                if isinstance(event, IterationCompleted):
                    delays.append((time.time() - event.event_time.timestamp()) * 1000)
            return delays

        found = await asyncio.gather(*(one() for _ in range(WATCHERS_A_USER)))
    return [delay for delays in found for delay in delays]


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"open_registration": "true", "workers": "1"}
        with serving(Path(scratch, "data"), **settings) as server, EasyML(server.target, token=server.token) as client:
            project = client.projects.create("bench")
            dataset = client.datasets.upload(project, table(), name="bench")
            tokens = [new_viewer(server.target, client, project, number) for number in range(USERS)]
            # A first training holds the only worker while the watchers of the second gather.
            client.trainings.start(project, dataset=dataset, target="target", algorithm="random_forest")
            training = client.trainings.start(
                project,
                dataset=dataset,
                target="target",
                algorithm="lightgbm",
                hyperparameters={"n_estimators": 400, "num_leaves": 63},
            )
            watchers = [
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.events", server.target, token, training.id],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for token in tokens
            ]
            delays = [delay for watcher in watchers for delay in json.loads(watcher.communicate()[0])]
    p50, p99 = np.percentile(delays, [50, 99])
    return {
        "watchers": USERS * WATCHERS_A_USER,
        "users": USERS,
        "events_received": len(delays),
        "p50_milliseconds": float(p50),
        "p99_milliseconds": float(p99),
        "p99_milliseconds_budget": 100,
    }


def new_viewer(target: str, owner: EasyML, project: Any, number: int) -> str:
    """An access token of a new member."""
    email = f"viewer{number}@example.org"
    with EasyML(target, token=None) as client:
        session = client.auth.register(email, PASSWORD)
    owner.projects.set_member(project, email, "viewer")
    return str(session.access_token)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(*sys.argv[1:4]))))
