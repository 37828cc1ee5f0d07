"""Why a container cannot be started yet."""

from __future__ import annotations


class NotYet(Exception):
    """The kubelet tries again; reason and message are what the pod's status says, `event` is the reason of an event."""

    def __init__(self, reason: str, message: str, event: str = "Failed") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.event = event
