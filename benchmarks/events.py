"""An event of a training to 200 watchers of several users. Budget: p99 at most 100 ms.

Measured from the time in the event, which it gets when the server takes it from the worker, to the moment a watcher has
it, commit included; everything runs on this machine, so there is one clock. The training is gradient boosting, whose
trees come at a steady rate. Each watcher has a connection of its own; they live in two processes and do nothing but
receive: what was received is decoded afterwards.
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

import grpc
import numpy as np

from benchmarks.report import Figure, Measured, Say
from benchmarks.servers import serving
from benchmarks.training import table
from easyml.v1 import training_service_pb2 as pb
from easyml_client import EasyML

USERS, WATCHERS_A_USER, PROCESSES = 4, 50, 2
ROWS, TREES = 12_000, 300
"""A tree takes about a twentieth of a second."""
METHOD = "/easyml.v1.TrainingService/WatchTraining"
PASSWORD = "a long enough pass phrase"
# Else channels to one address share a connection.
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def measure(say: Say) -> Measured:
    with tempfile.TemporaryDirectory() as scratch:
        settings = {"open_registration": "true", "workers": "1"}
        with serving(Path(scratch, "data"), **settings) as server, EasyML(server.target, token=server.token) as client:
            project = client.projects.create("bench")
            dataset = client.datasets.upload(project, table().head(ROWS), name="bench")
            tokens = [new_viewer(server.target, client, project, number) for number in range(USERS)]
            # A first training holds the only worker while the watchers of the second gather.
            first = client.trainings.start(
                project,
                dataset=dataset,
                target="target",
                algorithm="random_forest",
                hyperparameters={"n_estimators": 1000},
            )
            training = client.trainings.start(
                project,
                dataset=dataset,
                target="target",
                algorithm="gradient_boosting",
                hyperparameters={"n_estimators": TREES},
            )
            watchers = [
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.events", server.target, training.id, *tokens[number::PROCESSES]],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for number in range(PROCESSES)
            ]
            for watcher in watchers:
                wait_for_ready(watcher)
            say(f"{USERS * WATCHERS_A_USER} watchers wait")
            client.trainings.cancel(first.id)
            delays = [delay for watcher in watchers for delay in json.loads(watcher.communicate()[0])]
            experiment = training.result()
    p50, p99 = np.percentile(delays, [50, 99])
    watching = USERS * WATCHERS_A_USER
    return Measured(
        [Figure(f"an event to {watching} watchers of {USERS} users, p99", float(p99), "ms", at_most=100)],
        {
            "p50_milliseconds": float(p50),
            "largest_milliseconds": max(delays),
            "events_received": len(delays),
            "events_a_second_and_watcher": len(delays) / watching / duration(experiment),
        },
    )


def duration(experiment: Any) -> float:
    """Seconds from start to end."""
    return float((experiment.end_time - experiment.start_time).total_seconds())


def wait_for_ready(watcher: subprocess.Popen[str]) -> None:
    """Every watcher of a process has seen that the training is queued."""
    assert watcher.stdout is not None
    if watcher.stdout.readline() != "READY\n":
        raise SystemExit("the watchers cannot watch")


def new_viewer(target: str, owner: EasyML, project: Any, number: int) -> str:
    """An access token of a new member."""
    email = f"viewer{number}@example.org"
    with EasyML(target, token=None) as client:
        session = client.auth.register(email, PASSWORD)
    owner.projects.set_member(project, email, "viewer")
    return str(session.access_token)


async def watch(target: str, experiment: str, tokens: list[str]) -> list[float]:
    """Milliseconds each iteration took to each watcher."""
    request = pb.WatchTrainingRequest(experiment_id=experiment).SerializeToString()
    waiting = asyncio.Semaphore(0)
    watchers = [
        asyncio.create_task(receive(target, token, request, waiting))
        for token in tokens
        for _ in range(WATCHERS_A_USER)
    ]
    for _ in watchers:
        await waiting.acquire()
    print("READY", flush=True)
    return [delay for received in await asyncio.gather(*watchers) for delay in delays_in(received)]


async def receive(target: str, token: str, request: bytes, waiting: asyncio.Semaphore) -> list[tuple[float, bytes]]:
    """All messages of one watcher, with the time of each."""
    received: list[tuple[float, bytes]] = []
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        call = channel.unary_stream(METHOD)(request, metadata=(("authorization", f"Bearer {token}"),))
        async for raw in call:
            received.append((time.time(), raw))
            if len(received) == 1:
                waiting.release()
    return received


def delays_in(received: list[tuple[float, bytes]]) -> list[float]:
    """Milliseconds from each iteration's own time to its receipt."""
    events = [(at, pb.WatchTrainingResponse.FromString(raw).event) for at, raw in received]
    return [
        (at - event.event_time.ToNanoseconds() / 1e9) * 1000
        for at, event in events
        if event.HasField("iteration_completed")
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(sys.argv[1], sys.argv[2], sys.argv[3:]))))
