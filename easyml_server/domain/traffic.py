"""How the calls of a deployment are shared between two revisions, and how a canary's share grows.

A canary is a new revision that answers a few calls first, so that what is wrong with it harms few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from easyml_server.domain.deployments import (
    Canary,
    CanaryAnalysis,
    CanaryProgress,
    Deployment,
    DeploymentConfig,
    Revision,
    RevisionState,
    RolloutStrategy,
    TrafficChange,
)

ALL = 100
"""The weights of a deployment together."""
SIDE_BY_SIDE = (RolloutStrategy.BLUE_GREEN, RolloutStrategy.CANARY)
"""Strategies with which a new revision shares the calls with the active one before it has them all."""
REMEMBERED = 50
"""Changes of the share of one revision."""


@dataclass(frozen=True, slots=True)
class CallCounts:
    """Calls that the replicas of a revision answered in some time, and the p99 of their latency in seconds.

    Errors are the server's own; a refused request is an answer.
    """

    requests: int = 0
    errors: int = 0
    latency_p99: float | None = None

    @property
    def error_percent(self) -> float:
        """Calls of a hundred that failed."""
        return 100 * self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a canary: whether it answered enough calls to be judged, and what is wrong with it."""

    enough: bool
    failure: str = ""


def remember_shares(
    before: Mapping[int, int], after: Mapping[int, int], revisions: Iterable[Revision], now: datetime
) -> tuple[Revision, ...]:
    """The revisions, those whose share changed with the time of that."""
    return tuple(
        revision
        if before.get(revision.number, 0) == after.get(revision.number, 0)
        else replace(
            revision,
            traffic=(*revision.traffic, TrafficChange(after.get(revision.number, 0), now))[-REMEMBERED:],
        )
        for revision in revisions
    )


def shares(deployment: Deployment, newer: int) -> dict[int, int]:
    """The newest revision answers so many calls of a hundred, and the active one the others."""
    return {deployment.active_revision: ALL - newer, deployment.latest_revision: newer}


def step_begins(canary: Canary, step: int, now: datetime) -> CanaryProgress:
    """A step (1, 2, 3 …) that begins now; it ends by itself if it has a duration."""
    seconds = canary.steps[step - 1].duration_seconds
    return CanaryProgress(step, now, now + timedelta(seconds=seconds) if seconds else None)


def promoted(deployment: Deployment, now: datetime, *, full: bool = False) -> Deployment:
    """The newest revision, which is standing by, goes on to its next step, or has all calls."""
    canary, progress = deployment.config.canary, deployment.canary
    step = progress.step + 1 if progress and progress.step and not full else 0
    if canary is None or not 0 < step <= len(canary.steps):
        return replace(deployment, traffic=shares(deployment, ALL), canary=None)
    return replace(
        deployment,
        traffic=shares(deployment, canary.steps[step - 1].weight),
        canary=step_begins(canary, step, now),
    )


def withdrawn(revision: Revision, message: str = "") -> Revision:
    """A revision that was taken back before it had all calls: by somebody, or for what its analysis says."""
    return replace(revision, state=RevisionState.WITHDRAWN, message=message)


def going_back(deployment: Deployment, active: Revision) -> DeploymentConfig:
    """How the active revision is served, scaled as the deployment is now."""
    return replace(active.config, replicas=deployment.config.replicas, autoscaling=deployment.config.autoscaling)


def as_rolling(config: DeploymentConfig) -> DeploymentConfig:
    """The same, but that a revision takes over as soon as it is ready."""
    if config.strategy not in SIDE_BY_SIDE:
        return config
    return replace(config, strategy=RolloutStrategy.ROLLING, canary=None)


def judge(analysis: CanaryAnalysis | None, newer: CallCounts, older: CallCounts) -> Verdict:
    """Compare a canary with the revision before it; without an analysis nothing is wrong with it."""
    if analysis is None:
        return Verdict(enough=True)
    if newer.requests < analysis.min_requests:
        return Verdict(enough=False)
    if newer.error_percent > older.error_percent + analysis.max_error_percent:
        return Verdict(
            True,
            f"{newer.errors} of {newer.requests} calls failed ({newer.error_percent:.1f} %), "
            f"{older.error_percent:.1f} % of the revision before.",
        )
    if _is_slow(analysis, newer, older):
        return Verdict(
            True,
            f"The p99 of its latency is {1000 * (newer.latency_p99 or 0):.1f} ms, "
            f"{1000 * (older.latency_p99 or 0):.1f} ms of the revision before.",
        )
    return Verdict(enough=True)


def _is_slow(analysis: CanaryAnalysis, newer: CallCounts, older: CallCounts) -> bool:
    if not analysis.max_latency_ratio or newer.latency_p99 is None or older.latency_p99 is None:
        return False
    return newer.latency_p99 > analysis.max_latency_ratio * older.latency_p99
