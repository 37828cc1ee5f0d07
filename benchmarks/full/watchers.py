"""An event of a training to 200 watchers at two servers. Budget: p99 at most 250 ms.

Half of them watch at the server that runs the training, half at the other, which hears of events by PostgreSQL.
Measured as in `benchmarks.events`, on one machine, so there is one clock. Two trainings hold the only workers of both
servers while the watchers of the third gather.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.events import ROWS, TREES, USERS, WATCHERS_A_USER, duration, new_viewer, wait_for_ready
from benchmarks.full.places import places
from benchmarks.report import Figure, Measured, Say
from benchmarks.training import table
from easyml_client import EasyML
from tests.integration.replicas import Replicas, replicas
from tests.servers import ServerProcess, eventually

SERVERS = 2


def measure(say: Say) -> Measured:
    with places() as found, ExitStack() as stack:
        folder = found.data()
        folder.mkdir()
        settings = {"WORKERS": "1", "MONGODB_URL": found.documents(), "LEASE_SECONDS": "30"}
        servers = stack.enter_context(replicas(folder, found.database(), SERVERS, **settings))
        first, second = servers.servers
        client = stack.enter_context(EasyML(first.address, token=first.key))
        project = client.projects.create("bench")
        dataset = client.datasets.upload(project, table().head(ROWS), name="bench")
        tokens = [new_viewer(first.address, client, project, number) for number in range(USERS)]
        blockers = [start(client, project, dataset, "random_forest", n_estimators=1000) for _ in range(SERVERS)]
        training = start(client, project, dataset, "gradient_boosting", n_estimators=TREES)
        half = USERS // SERVERS
        watchers = {
            server.address: watching(server.address, training.id, tokens[number * half : (number + 1) * half])
            for number, server in enumerate((first, second))
        }
        for watcher in watchers.values():
            wait_for_ready(watcher)
        say(f"{USERS * WATCHERS_A_USER} watchers wait at {SERVERS} servers")
        for blocker in blockers:
            client.trainings.cancel(blocker.id)
        runner = running(servers, client, blockers).address
        delays = {address: json.loads(watcher.communicate()[0]) for address, watcher in watchers.items()}
        experiment = training.result()
    here, there = delays.pop(runner), *delays.values()
    return Measured(
        [
            Figure(
                f"an event to {half * WATCHERS_A_USER} watchers {where}, p99",
                float(np.percentile(each, 99)),
                "ms",
                at_most=250,
            )
            for where, each in {"where it happens": here, "at another server": there}.items()
        ],
        {
            "p50_here_ms": float(np.percentile(here, 50)),
            "p50_there_ms": float(np.percentile(there, 50)),
            "largest_ms": max(here + there),
            "events_received": len(here) + len(there),
            "events_a_second_and_watcher": len(here + there) / (USERS * WATCHERS_A_USER) / duration(experiment),
        },
    )


def start(client: EasyML, project: Any, dataset: Any, algorithm: str, **hyperparameters: int) -> Any:
    return client.trainings.start(
        project, dataset=dataset, target="target", algorithm=algorithm, hyperparameters=hyperparameters
    )


def running(servers: Replicas, client: EasyML, blockers: Sequence[Any]) -> ServerProcess:
    """The server that trains, once the blockers are gone."""
    for blocker in blockers:
        eventually(lambda blocker=blocker: client.experiments.get(blocker.id).state == "cancelled")
    return servers.runner()


def watching(target: str, experiment: str, tokens: Sequence[str]) -> subprocess.Popen[str]:
    """The watchers of a server, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.events", target, experiment, *tokens]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
