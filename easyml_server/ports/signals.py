"""What servers on one database tell each other once it is committed: ids, and whoever hears them looks at the rows.

A signal may be lost. So nothing depends on one: who waits for signals also looks now and then.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol
from uuid import UUID


class Topic(StrEnum):
    """What happened."""

    EVENTS = "events"
    """A training has new events; its id."""
    QUEUE = "queue"
    """Something was queued, or there is room for what waits; the id of the training."""
    CANCEL = "cancel"
    """A training is to stop; its id."""
    ACCESS = "access"
    """A user's sessions or keys have ended; the user's id."""
    DEPLOYMENT = "deployment"
    """Something of a deployment was stored; its id."""


class Signals(Protocol):
    """Tells the other servers."""

    def send(self, topic: Topic, subject_id: UUID) -> None:
        """Soon, and without waiting for it."""
        ...


class Alone:
    """There is no other server."""

    def send(self, topic: Topic, subject_id: UUID) -> None:
        """Nobody hears it."""
