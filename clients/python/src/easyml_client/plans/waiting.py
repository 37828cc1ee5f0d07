"""How long to wait before a stream is taken up again.

Unary calls are retried by gRPC itself (service_config.json). Streams that can go on where they were are ours: gRPC
would start them from the beginning.
"""

from __future__ import annotations

from easyml_client.errors import EasyMLError, LimitReached, Unavailable
from easyml_client.handshake import cannot_change
from easyml_client.steps import Plan, Sleep

_FIRST_SECONDS, _LONGEST_SECONDS, _TIMES = 0.2, 3.0, 25
"""About a minute in all: long enough for a server to be started anew."""


class Patience:
    """Waits longer each time nothing came, and gives up in the end."""

    def __init__(self) -> None:
        self._failures = 0

    def restored(self) -> None:
        """Something came: begin anew."""
        self._failures = 0

    def wait(self, error: EasyMLError) -> Plan[None]:
        """Waits as the server asks or as the failures suggest; raises the error if waiting is no help."""
        self._failures += 1
        if self._failures > _TIMES or not _passes(error):
            raise error
        backoff = min(_FIRST_SECONDS * 2 ** (self._failures - 1), _LONGEST_SECONDS)
        yield Sleep(error.retry_after if error.retry_after is not None else backoff)


def _passes(error: EasyMLError) -> bool:
    if isinstance(error, LimitReached):
        return error.retry_after is not None
    return isinstance(error, Unavailable) and not cannot_change(error)
