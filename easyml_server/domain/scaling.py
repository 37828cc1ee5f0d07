"""How many replicas the calls of a deployment need: more at once, fewer only once fewer were enough for a while.

The average number of calls in flight decides, as with Knative. Of all that was recommended within the cooldown the
most counts, as within the stabilization window of Kubernetes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

LOOK_SECONDS: Final = 1.0
"""How often it is looked how many calls are in flight."""
AVERAGED_LOOKS: Final = 3
"""So many looks decide together, so that one moment does not."""
TOLERANCE: Final = 0.1
"""A tenth of what a replica is to have calls for no further one: measured averages waver so much."""


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Between which numbers replicas follow the calls.

    Each is to have `target_requests_in_flight`. Fewer must have been enough for `cooldown_seconds` before one is taken
    away.
    """

    min_replicas: int = 1
    max_replicas: int = 0
    target_requests_in_flight: int = 8
    target_cpu_percent: int = 0
    cooldown_seconds: int = 60

    def within(self, replicas: int) -> int:
        """As many, or the bound that is nearest."""
        return max(self.min_replicas, min(replicas, self.max_replicas))

    def beginning(self, running: int) -> int:
        """How many there are of a new revision: it has to become ready, so at least one."""
        return max(1, self.within(running))

    def needed(self, in_flight: float) -> int:
        """Replicas for so many calls in flight, whatever the bounds; none if there are no calls at all."""
        return max(1, math.ceil(in_flight / self.target_requests_in_flight - TOLERANCE)) if in_flight > 0 else 0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many replicas should run, for how many calls in flight, and whether the upper bound keeps it from more."""

    replicas: int
    in_flight: float
    limited: bool = False


class Demand:
    """The calls of one deployment, look after look; times are seconds of a clock that never goes back."""

    def __init__(self, scaling: Autoscaling, began: float) -> None:
        """Nothing is known of the time before `began`."""
        self.scaling = scaling
        self._began = began
        self._looks: deque[float] = deque(maxlen=AVERAGED_LOOKS)
        # (time, average), each less than the one before it: the first is the largest of the cooldown.
        self._averages: deque[tuple[float, float]] = deque()

    def looked(self, in_flight: float, now: float) -> None:
        """So many calls were in flight on average since the last look."""
        self._looks.append(in_flight)
        self._note(sum(self._looks) / AVERAGED_LOOKS, now)

    def called(self, now: float) -> None:
        """A call waits for a replica, which is needed before the next look."""
        self._note(1.0, now)

    def recommend(self, current: int, now: float) -> Recommendation:
        """How many replicas there should be where `current` are wanted."""
        self._forget(now)
        in_flight = self._averages[0][1] if self._averages else 0.0
        needed = self.scaling.needed(in_flight)
        known = now - self._began >= self.scaling.cooldown_seconds
        replicas = self.scaling.within(needed if known else max(needed, current))
        return Recommendation(replicas, in_flight, needed > self.scaling.max_replicas)

    def _note(self, average: float, now: float) -> None:
        while self._averages and self._averages[-1][1] <= average:
            self._averages.pop()
        self._averages.append((now, average))
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._averages and self._averages[0][0] < now - self.scaling.cooldown_seconds:
            self._averages.popleft()
