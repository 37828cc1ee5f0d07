"""Pages of a list in a project of 1,000,000 experiments against one of 1,000. Budget: 1.5 times.

Each project is in a database of its own, with a server of its own, on one PostgreSQL; both are asked in turns, a page
of 50 at a time. A page far in is asked for by a token made from that of the first page, so that nobody has to turn
thousands of pages.
"""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

from benchmarks.full.experiments import ALGORITHMS, COMMON, FAILED, RARE, multiply, trained
from benchmarks.full.places import Places, places
from benchmarks.report import Figure, Measured, Say
from easyml.v1 import experiment_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.servers import Client, serving

FEW, MANY = 1_000, 1_000_000
ROUNDS, PAGES_A_ROUND = 12, 3
OLDEST_FIRST = pb.EXPERIMENT_ORDER_CREATE_TIME_ASC
STATE_FAILED, STATE_CANCELLED = experiment_pb2.TRAINING_STATE_FAILED, experiment_pb2.TRAINING_STATE_CANCELLED
FAR = {"first": 0.0, "middle": 0.5, "last but one": 0.9}
"""Which page, as a share of the list."""
FILTERS: Mapping[str, Mapping[str, object]] = {
    "oldest first": {"order_by": OLDEST_FIRST},
    f"one in {FAILED} by state": {"states": [STATE_FAILED]},
    "by two states": {"states": [STATE_FAILED, STATE_CANCELLED]},
    f"one in {ALGORITHMS} by algorithm": {"algorithm": "linear_regression"},
    f"one in {COMMON} by label": {"labels": {"common": "yes"}},
}
RARE_FILTER = {"labels": {"rare": "yes"}}


@dataclass(frozen=True)
class Project:
    """One of either size, and who asks for its pages."""

    client: Client
    id: str
    size: int
    oldest: datetime

    def page(self, **asked: object) -> pb.ListExperimentsResponse:
        """One page."""
        answer = self.client.trainings.ListExperiments(pb.ListExperimentsRequest(project_id=self.id, **asked))
        assert isinstance(answer, pb.ListExperimentsResponse)
        return answer

    def far(self, share: float) -> dict[str, object]:
        """What asks for the page that begins so far in."""
        if not share:
            return {}
        fingerprint, _, identity = json.loads(base64.urlsafe_b64decode(self.page().next_page_token))
        position = self.oldest + timedelta(seconds=self.size * (1 - share))
        token = json.dumps([fingerprint, position.isoformat(), identity]).encode()
        return {"page_token": base64.urlsafe_b64encode(token).decode()}


def measure(say: Say) -> Measured:
    with places() as found, ExitStack() as stack:
        few = project(found, stack, FEW)
        say(f"{FEW:,} experiments are there")
        many = project(found, stack, MANY)
        say(f"{MANY:,} experiments are there")
        asked = {f"{name} page": (few.far(share), many.far(share)) for name, share in FAR.items()}
        asked |= {name: (dict(only), dict(only)) for name, only in FILTERS.items()}
        took = {name: take_turns((few, many), each) for name, each in asked.items()}
        for name, (small, large) in took.items():
            say(f"{name}: {large * 1000:.1f} ms; of {FEW:,} {small * 1000:.1f} ms")
        rare = take_turns((few, many), (dict(RARE_FILTER), dict(RARE_FILTER)), rounds=1)
    figures = [
        Figure(f"list of {MANY:,} experiments to one of {FEW:,}: {name}", large / small, "x", at_most=1.5)
        for name, (small, large) in took.items()
    ]
    details = {f"{name}_ms": large * 1000 for name, (_, large) in took.items()}
    return Measured(figures, {**details, f"one in {RARE} by label ms": rare[1] * 1000, "pages": ROUNDS * PAGES_A_ROUND})


def project(found: Places, stack: ExitStack, size: int) -> Project:
    """A project of this size, behind a server of its own."""
    url = found.database()
    server = stack.enter_context(serving(found.data(), DATABASE_URL=url, MIGRATE_AT_START="true"))
    project_id, experiment_id = trained(server)
    multiply(url, experiment_id, size - 1)
    client = stack.enter_context(Client(server.address, server.key))
    oldest = client.trainings.GetExperiment(pb.GetExperimentRequest(experiment_id=experiment_id)).experiment
    return Project(client, project_id, size, oldest.create_time.ToDatetime())


def take_turns(
    projects: Sequence[Project], asked: Sequence[dict[str, object]], rounds: int = ROUNDS
) -> tuple[float, float]:
    """Seconds of a page of each, medians."""
    took: tuple[list[float], list[float]] = ([], [])
    for each, request in zip(projects, asked, strict=True):
        assert each.page(**request).experiments, "there is such a page"
    for _ in range(rounds):
        for each, request, seconds in zip(projects, asked, took, strict=True):
            for _ in range(PAGES_A_ROUND):
                started = time.perf_counter()
                each.page(**request)
                seconds.append(time.perf_counter() - started)
    return statistics.median(took[0]), statistics.median(took[1])
