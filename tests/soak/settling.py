"""After the last strike: clients repeat what is in doubt, trainings end, what waits is applied, all is watched again.

The servers are started once more too, since what a crash or an unanswered commit left is removed at a start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.soak.client import SoakClient
from tests.soak.stage import Stage

DOUBT_SECONDS = 180.0
TRAINING_SECONDS = 120.0
CANCEL_SECONDS = 60.0
APPLY_SECONDS = 900.0
POLL_SECONDS = 0.5
UNFINISHED = (
    "SELECT id::text, project_id::text AS project FROM ml_experiments"
    " WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"
)
ALL = "SELECT id::text, project_id::text AS project FROM ml_experiments ORDER BY create_time"
WAITING = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM pending_documents) AS number"
Say = Callable[[str], None]


def settle(stage: Stage, clients: Sequence[SoakClient], say: Say) -> list[str]:
    """Returns what did not come to rest."""
    by_project: Mapping[str, SoakClient] = {client.shelf.project_id: client for client in reversed(clients)}
    left = []
    say("settling: what is in doubt is repeated")
    if not _within(DOUBT_SECONDS, lambda: not [each for each in clients if not each.settle()]):
        left.append("uploads or starts are still not answered")
    say("settling: trainings end")
    if not _within(TRAINING_SECONDS, lambda: not stage.execute(UNFINISHED)):
        for row in stage.execute(UNFINISHED):
            by_project[row["project"]].give_up(row["id"])
        if not _within(CANCEL_SECONDS, lambda: not stage.execute(UNFINISHED)):
            left.append(f"trainings do not end: {[row['id'] for row in stage.execute(UNFINISHED)]}")
    left += _applied(stage, say)
    say("settling: the servers are started once more")
    _restart(stage, left)
    left += _applied(stage, say)
    say("settling: every training is watched from its first event")
    for row in stage.execute(ALL):
        by_project[row["project"]].audit(row["id"])
    for client in clients:
        client.close()
    left += _codes(stage.stop_servers())
    return left


def _applied(stage: Stage, say: Say) -> list[str]:
    say("settling: what waits is applied")
    if _within(APPLY_SECONDS, lambda: _number(stage.execute(WAITING)) == 0):
        return []
    kinds = stage.execute("SELECT kind, count(*) AS number FROM outbox GROUP BY kind")
    return [f"intents and documents wait on: {[dict(row) for row in kinds]}"]


def _restart(stage: Stage, left: list[str]) -> None:
    left += _codes(stage.stop_servers())
    for server in stage.servers:
        server.start()


def _codes(codes: Sequence[int]) -> list[str]:
    return [f"a server ended with {code}" for code in codes if code]


def _number(rows: Sequence[Any]) -> int:
    return int(rows[0]["number"])


def _within(seconds: float, happened: Callable[[], bool]) -> bool:
    last = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > last:
            return False
        time.sleep(POLL_SECONDS)
    return True
