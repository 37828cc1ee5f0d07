"""Clients work over two servers while faults strike; then a checker compares what they were told with what is stored.

Exit codes: 0 if nothing was found, 1 if something was, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from easyml_client import EasyML
from tests.builders import PASSWORD
from tests.soak.checker import check
from tests.soak.client import SoakClient
from tests.soak.journal import Call, Journal, Tally, read_journals
from tests.soak.report import result, too_little, write
from tests.soak.settling import settle
from tests.soak.shelf import Shelf
from tests.soak.stage import Stage, staged
from tests.soak.stored import read_stored
from tests.soak.strikes import Strike, Striker
from tests.soak.tools import Tools

USERS = 3
CLIENTS_OF_A_USER = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PROGRESS_SECONDS = 10.0
END_SECONDS = 180.0
"""For calls that were made before the end; the client tries an upload for a minute after its last progress."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=_positive, default=20.0, help="how long clients work and faults strike")
    parser.add_argument("--seed", type=int, help="of everything that is drawn; printed if it is not given")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    stopping = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stopping.set())
    folder = Path(tempfile.mkdtemp(prefix="easyml-soak-"))
    say(f"soak of {given.minutes:g} minutes, seed {seed}, in {folder}")
    soak = Soak(folder, seed, given.minutes, stopping)
    try:
        done = soak.run()
    except KeyboardInterrupt:
        done = False
    except Exception:
        say(f"{traceback.format_exc()}\n{soak.kept}")
        return 1
    if not done:
        say("interrupted; nothing was checked")
        shutil.rmtree(folder)
        return 130
    return soak.judged()


class Soak:
    """One run."""

    def __init__(self, folder: Path, seed: int, minutes: float, stopping: threading.Event) -> None:
        self._folder = folder
        self._seed = seed
        self._minutes = minutes
        self._stopping = stopping
        self._ending = threading.Event()
        self._ended = 0.0
        self._tally = Tally()
        self._strikes: Sequence[Strike] = ()
        self._verdicts: dict[str, Sequence[str]] = {}
        self._calls: Sequence[Call] = ()

    def run(self) -> bool:
        """Everything up to the verdicts; False if it was interrupted."""
        journals = self._folder / "journals"
        journals.mkdir()
        with staged(self._folder) as stage:
            clients = self._clients(stage, journals)
            striker = self._load(stage, clients)
            if self._stopping.is_set():
                return False
            for number in SIGNALS:
                signal.signal(number, signal.default_int_handler)
            threads: Sequence[SoakClient | Striker] = (*clients, striker)
            failures = [thread.failure for thread in threads if thread.failure]
            failures += [f"{thread.name} does not end" for thread in threads if thread.is_alive()]
            for failure in failures:
                # At once: nothing may come to rest after it.
                say(failure)
            unsettled = settle(stage, clients, say)
            stored = read_stored(stage)
        self._strikes = striker.strikes
        self._calls = read_journals(journals)
        self._verdicts = {
            "enough happened": too_little(self._loaded, striker.strikes, striker.kinds, self._minutes),
            "clients and faults went on to the end": failures,
            "everything came to rest": unsettled,
            **check(self._calls, stored),
        }
        return True

    def judged(self) -> int:
        """Write the result and say what was found; the exit code."""
        found = result(self._seed, self._minutes, self._loaded, self._strikes, self._verdicts)
        broken = {name: sentences for name, sentences in self._verdicts.items() if sentences}
        if not broken:
            sys.stdout.write(f"\n{write(found)}")
            shutil.rmtree(self._folder)
            return 0
        show(broken)
        say(self.kept)
        return 1

    @property
    def _loaded(self) -> Sequence[Call]:
        """Without what was asked while all came to rest."""
        return [call for call in self._calls if call.begin < self._ended]

    @property
    def kept(self) -> str:
        """Where to look."""
        return f"seed {self._seed}; journals, logs and databases are in {self._folder}"

    def _clients(self, stage: Stage, journals: Path) -> list[SoakClient]:
        keys, projects = [], []
        for _ in range(USERS):
            with EasyML(stage.addresses[0]) as easyml:
                easyml.auth.register(f"{uuid4()}@example.org", PASSWORD)
                keys.append(easyml.auth.create_api_key("soak").secret)
                projects.append(Shelf(easyml.projects.create("soak").id))
        files = self._folder / "tables"
        files.mkdir()
        clients = []
        for number in range(USERS * CLIENTS_OF_A_USER):
            user, name = number % USERS, f"client-{number}"
            addresses = stage.addresses if number < USERS else stage.addresses[::-1]
            journal = Journal(journals, name, self._tally.add)
            shelves = projects[user], projects[(user + 1) % USERS]
            seed = str(self._seed)
            clients.append(
                SoakClient(Tools.of(name, addresses, keys[user], shelves, journal, files, seed), self._ending)
            )
        return clients

    def _load(self, stage: Stage, clients: Sequence[SoakClient]) -> Striker:
        """Work and strikes for so many minutes; all threads have ended then."""
        striker = Striker(stage, f"{self._seed}/faults", self._ending, say)
        began = time.monotonic()
        for thread in (*clients, striker):
            thread.start()
        while (left := began + 60 * self._minutes - time.monotonic()) > 0:
            if self._stopping.wait(min(PROGRESS_SECONDS, left)) or not all_alive(clients, striker):
                break
            say(progress(time.monotonic() - began, self._tally, len(striker.strikes)))
        self._ended = time.monotonic()
        self._ending.set()
        if self._stopping.is_set():
            for client in clients:
                client.hang_up()
        striker.join(END_SECONDS)
        for client in clients:
            client.join(END_SECONDS)
        return striker


def all_alive(clients: Sequence[SoakClient], striker: Striker) -> bool:
    """Whether nobody failed."""
    return striker.is_alive() and all(client.is_alive() for client in clients)


def progress(seconds: float, tally: Tally, strikes: int) -> str:
    """One line."""
    outcomes = tally.counts()
    answered = {kind: of.get("answered", 0) for kind, of in outcomes.items()}
    other: dict[str, int] = {}
    for of in outcomes.values():
        for outcome, number in of.items():
            if outcome != "answered":
                other[outcome] = other.get(outcome, 0) + number
    words = ", ".join(f"{kind} {number}" for kind, number in answered.items())
    rest = ", ".join(f"{outcome} {number}" for outcome, number in sorted(other.items()))
    return (
        f"{seconds:6.0f} s  {sum(answered.values())} answered ({words}); {rest or 'nothing refused'}; {strikes} faults"
    )


def show(broken: Mapping[str, Sequence[str]]) -> None:
    for name, sentences in broken.items():
        say(f"\n{name}: {len(sentences)} found")
        for sentence in sentences[:20]:
            say(f"  {sentence}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _positive(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
