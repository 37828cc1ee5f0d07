"""The long forms: what is done, as it is done, and the results written down. `make faults` runs them."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from easyml.v1 import training_service_pb2 as pb
from tests.builders import a_long_training, a_project_of, upload
from tests.faults.consistency import check_consistent
from tests.faults.kills import TimedStory, Trainings, Uploads
from tests.faults.plan import FaultPlan, until
from tests.faults.points import SERVER_POINTS, points_in_the_code, points_with_a_test
from tests.faults.results import of_kills, write_result
from tests.faults.writes import CASES, ERRORS, Writes
from tests.servers import ROOT, Client, ServerProcess, serving

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

KILLS = 20
PEER_GONE_SECONDS = 120.0
"""Pings go every 30 s, and an answer may take 20 s."""


@pytest.fixture
def plan(tmp_path: Path) -> FaultPlan:
    return FaultPlan(tmp_path / "plan")


@pytest.fixture
def server(plan: FaultPlan) -> Iterator[ServerProcess]:
    with serving(plan.path.parent / "data", FAULT=str(plan.path)) as server:
        yield server
        plan.arm()


def tell(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


@pytest.mark.parametrize("kind", [Uploads, Trainings])
def test_a_server_killed_over_and_over_loses_nothing(
    server: ServerProcess, plan: FaultPlan, kind: type[TimedStory]
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    tell(f"\n{KILLS} random kills of an {kind.name}, seed {seed}")
    story = kind(server, plan)
    kills = []
    for moment in story.moments(KILLS, seed):
        kills.append(story.killed_at(moment))
        tell(f"  {len(kills):2} while {kills[-1].stage}: {kills[-1].outcome} {kills[-1].details}")
    assert {kill.stage for kill in kills} >= set(story.stages), "a stage was never struck"
    write_result(f"kills_{kind.name}", seed=seed, **of_kills(kills))


def test_a_server_killed_at_each_point_loses_nothing(server: ServerProcess, plan: FaultPlan) -> None:
    assert points_in_the_code() == points_with_a_test()
    tell("\nThe server killed at each named point")
    stories = {kind: kind(server, plan) for kind in set(SERVER_POINTS.values())}
    kills = []
    for (fault, name), kind in SERVER_POINTS.items():
        kill = stories[kind].killed_by(fault)
        kill.stage = f"{name}: {fault}"
        kills.append(kill)
        tell(f"  {kill.stage}: {kill.outcome}")
    write_result("points", **of_kills(kills))


def test_each_write_fails_once(server: ServerProcess, plan: FaultPlan) -> None:
    tell("\nThe n-th write fails")
    writes = Writes(server, plan)
    outcomes = []
    for case, run in CASES.items():
        for error in ERRORS:
            count = run(writes, error)
            outcomes.append({"stage": case, "outcome": f"{error}: said, nothing left, done again", "count": count})
            tell(f"  {case} {error}: {count} failed")
            assert count
    writes.client.close()
    write_result("writes", count=sum(int(str(each["count"])) for each in outcomes), outcomes=outcomes)


WATCH = """
import sys, grpc
from easyml.v1 import training_service_pb2 as pb, training_service_pb2_grpc as service
channel = grpc.insecure_channel(sys.argv[1])
stub = service.TrainingServiceStub(channel)
request = pb.WatchTrainingRequest(experiment_id=sys.argv[3])
for answer in stub.WatchTraining(request, metadata=[("authorization", f"Bearer {sys.argv[2]}")]):
    print(answer.event.sequence, flush=True)
"""


def test_a_frozen_client_is_let_go(server: ServerProcess) -> None:
    tell("\nA frozen client (its pings go unanswered: about a minute)")
    with Client(server.address, server.key) as client:
        project_id = a_project_of(client)
        started = client.trainings.StartTraining(a_long_training(project_id, upload(client, project_id).id))
        command = [sys.executable, "-c", WATCH, server.address, server.key, started.experiment.id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watching:
            assert watching.stdout is not None
            assert watching.stdout.readline() == "1\n"
            ports = {each.laddr.port for each in psutil.Process(watching.pid).net_connections("tcp")}
            watching.send_signal(signal.SIGSTOP)
            until(lambda: not ports & peers(server), "the server lets the connection go", PEER_GONE_SECONDS)
            watching.kill()
        client.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=started.experiment.id))
        list(client.trainings.WatchTraining(pb.WatchTrainingRequest(experiment_id=started.experiment.id)))
        check_consistent(server.data)
    outcome = {"stage": "watching", "outcome": "its connection was closed, nobody else noticed", "count": 1}
    write_result("frozen", count=1, outcomes=[outcome])


def peers(server: ServerProcess) -> set[int]:
    """Ports at the other end of the server's connections."""
    connections = psutil.Process(server.running.pid).net_connections("tcp")
    return {each.raddr.port for each in connections if each.raddr and each.status == psutil.CONN_ESTABLISHED}
