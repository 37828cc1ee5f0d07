"""What the clients of one project know of it: where the next call is aimed, no more."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
KEPT = 4
"""Datasets and versions that stay, so that there is always something to work on."""


@dataclass
class Shelf:
    """A project and what its clients were told is in it."""

    project_id: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    etags: dict[str, str] = field(default_factory=dict)
    """By dataset."""
    experiments: dict[str, str] = field(default_factory=dict)
    """The state each had when it was last told of; empty before that."""
    versions: list[str] = field(default_factory=list)
    aliased: set[str] = field(default_factory=set)

    def a_dataset(self, draw: random.Random) -> str | None:
        """Any."""
        with self.lock:
            return _any(draw, list(self.etags))

    def a_version(self, draw: random.Random) -> str | None:
        """Any."""
        with self.lock:
            return _any(draw, self.versions)

    def an_experiment(self, draw: random.Random, *, unfinished: bool) -> str | None:
        """Any that has ended, or has not as far as anybody knows."""
        with self.lock:
            return _any(draw, [each for each, state in self.experiments.items() if bool(state) is not unfinished])

    def unfinished(self) -> int:
        """How many trainings have not ended, as far as anybody knows."""
        with self.lock:
            return sum(not state for state in self.experiments.values())

    def put_etag(self, dataset_id: str, etag: str) -> None:
        """The newest that is known, unless the dataset was taken away meanwhile."""
        with self.lock:
            if dataset_id in self.etags:
                self.etags[dataset_id] = etag

    def add_dataset(self, dataset_id: str, etag: str) -> None:
        """A new one."""
        with self.lock:
            self.etags[dataset_id] = etag

    def add_experiment(self, experiment_id: str) -> None:
        """A new one, or one that was told of again."""
        with self.lock:
            self.experiments.setdefault(experiment_id, "")

    def ended(self, experiment_id: str, state: str, version_id: str) -> None:
        """A training has ended."""
        with self.lock:
            if not self.experiments.get(experiment_id) and version_id:
                self.versions.append(version_id)
            self.experiments[experiment_id] = state

    def take_dataset(self, draw: random.Random) -> str | None:
        """One that nobody uses from now on, to be deleted."""
        with self.lock:
            found = _any(draw, list(self.etags)[:-KEPT])
            if found is not None:
                del self.etags[found]
            return found

    def take_version(self, draw: random.Random) -> str | None:
        """One that nobody uses from now on, to be deleted."""
        with self.lock:
            found = _any(draw, [each for each in self.versions[:-KEPT] if each not in self.aliased])
            if found is not None:
                self.versions.remove(found)
            return found

    def take_for_alias(self, draw: random.Random) -> str | None:
        """One that is not deleted from now on."""
        with self.lock:
            found = _any(draw, self.versions)
            if found is not None:
                self.aliased.add(found)
            return found


def _any(draw: random.Random, found: list[T]) -> T | None:
    return draw.choice(found) if found else None
