"""Keeps the history of a training readable and its cost bounded."""

from __future__ import annotations

from easyml_server.domain.events import IterationCompleted, LogLine, WarningRaised
from easyml_server.domain.experiments import TrainingWarning, TrainingWarningKind
from easyml_server.domain.training import Report


class EventThinner:
    """Decides which reports become events: iterations and log lines beyond the limits do not, all others do.

    A second's worth may come at once; then `per_second` counts.
    """

    def __init__(self, per_second: float, per_run: int) -> None:
        self._per_second = per_second
        self._left_in_run = per_run
        self._allowance = per_second
        self._time: float | None = None
        self.left_out = 0

    def admits(self, report: Report, time: float) -> bool:
        """Whether this report, made at `time` (seconds of a monotonic clock), becomes an event."""
        self._refill(time)
        if isinstance(report, IterationCompleted | LogLine) and (self._allowance < 1 or self._left_in_run < 1):
            self.left_out += 1
            return False
        self._allowance = max(self._allowance - 1, 0)
        self._left_in_run -= 1
        return True

    def warning(self) -> WarningRaised | None:
        """What to say at the end; None if everything was told."""
        if not self.left_out:
            return None
        message = f"{self.left_out} iterations and log lines were left out to keep within the limits of the history."
        return WarningRaised(TrainingWarning(TrainingWarningKind.EVENTS_THINNED, "", message))

    def _refill(self, time: float) -> None:
        if self._time is not None:
            self._allowance = min(self._allowance + (time - self._time) * self._per_second, self._per_second)
        self._time = time
