"""What strikes the servers while clients work: one fault after another, each undone before the next."""

from __future__ import annotations

import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]  # it ships no types

from tests.proxy import Proxy
from tests.servers import ServerProcess
from tests.soak.stage import LEASE_SECONDS, Stage

CALM_SECONDS = (3.0, 8.0)
"""Between two strikes, so that work goes through."""
AWAY_SECONDS = (2.0, 6.0)
FROZEN_SECONDS = (LEASE_SECONDS + 2, LEASE_SECONDS + 7)
WORKER_POLLS = 100


@dataclass(frozen=True)
class Strike:
    """One fault: when it began after the beginning of all, and how long it was until all was back."""

    kind: str
    details: str
    began: float
    lasted: float


class Striker(threading.Thread):
    """Strikes with each kind of fault in an order drawn anew for each round."""

    def __init__(self, stage: Stage, seed: str, stopping: threading.Event, say: Callable[[str], None]) -> None:
        super().__init__(name="strikes", daemon=True)
        self.strikes: list[Strike] = []
        self.failure = ""
        self._stage = stage
        self._draw = random.Random(seed)
        self._stopping = stopping
        self._say = say
        self._began = time.monotonic()
        self._kinds: Mapping[str, Callable[[], str]] = {
            "server killed": self._kill_server,
            "server stopped": self._stop_server,
            "server frozen beyond its lease": self._freeze_server,
            "worker killed": self._kill_worker,
            "PostgreSQL killed": self._kill_postgres,
            "link to PostgreSQL cut": self._cut,
            "link to PostgreSQL stalled": self._stall,
            "link to MongoDB cut": self._cut_mongo,
        }

    @property
    def kinds(self) -> list[str]:
        """All kinds of faults."""
        return list(self._kinds)

    def run(self) -> None:
        """Until it is told to stop; what cannot be undone ends it, and is its failure."""
        try:
            while not self._stopping.is_set():
                order = list(self._kinds)
                self._draw.shuffle(order)
                for kind in order:
                    if self._stopping.wait(self._draw.uniform(*CALM_SECONDS)):
                        return
                    self._strike(kind)
        except Exception:
            self.failure = traceback.format_exc()

    def _strike(self, kind: str) -> None:
        began = time.monotonic() - self._began
        details = self._kinds[kind]()
        strike = Strike(kind, details, round(began, 1), round(time.monotonic() - self._began - began, 1))
        self.strikes.append(strike)
        self._say(f"{strike.began:6.0f} s  {kind}: {details}, {strike.lasted} s")

    def _any_server(self) -> tuple[int, ServerProcess]:
        number = self._draw.randrange(len(self._stage.servers))
        return number, self._stage.servers[number]

    def _kill_server(self) -> str:
        number, server = self._any_server()
        server.kill()
        self._stopping.wait(self._draw.uniform(0, 3))
        server.start()
        return f"server {number}"

    def _stop_server(self) -> str:
        number, server = self._any_server()
        code = server.stop()
        assert code == 0, f"server {number} ended with {code} when it was told to"
        server.start()
        return f"server {number}"

    def _freeze_server(self) -> str:
        number, server = self._any_server()
        server.running.send_signal(signal.SIGSTOP)
        self._stopping.wait(self._draw.uniform(*FROZEN_SECONDS))
        server.running.send_signal(signal.SIGCONT)
        return f"server {number}"

    def _kill_worker(self) -> str:
        for _ in range(WORKER_POLLS):
            with suppress(psutil.NoSuchProcess, IndexError):
                worker = self._draw.choice(self._stage.workers())
                worker.kill()
                return f"process {worker.pid}"
            if self._stopping.wait(0.05):
                break
        return "nothing was trained"

    def _kill_postgres(self) -> str:
        self._stage.postgres.kill_and_start()
        return "and started again"

    def _cut(self) -> str:
        number = self._draw.randrange(len(self._stage.database_links))
        self._away(self._stage.database_links[number], self._stage.database_links[number].down)
        return f"of server {number}"

    def _stall(self) -> str:
        number = self._draw.randrange(len(self._stage.database_links))
        self._away(self._stage.database_links[number], self._stage.database_links[number].stall)
        return f"of server {number}"

    def _cut_mongo(self) -> str:
        self._away(self._stage.mongo_link, self._stage.mongo_link.down)
        return "of both servers"

    def _away(self, link: Proxy, take: Callable[[], None]) -> None:
        take()
        self._stopping.wait(self._draw.uniform(*AWAY_SECONDS))
        link.up()
