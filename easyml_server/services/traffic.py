"""What is asked of the traffic of a deployment: whether it can be, and what is stored of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from easyml_server.domain.deployments import Deployment, RevisionState
from easyml_server.domain.errors import InvalidInput, WrongState
from easyml_server.domain.traffic import ALL, going_back, remember_shares, withdrawn
from easyml_server.ports.store import UnitOfWork


async def check_standing_by(work: UnitOfWork, deployment: Deployment) -> None:
    """WrongState if no newer revision can be given calls."""
    (newest,) = await work.deployments.revisions(deployment.id, [deployment.latest_revision])
    if deployment.stopped:
        raise WrongState(
            f"The deployment was stopped; roll it back to one of its revisions (the newest is {newest.number}) first.",
            metadata={"state": deployment.state.value},
        )
    if newest.state is RevisionState.ACTIVE:
        raise WrongState(
            f"Revision {newest.number} answers all calls already; there is nothing to share or to promote.",
            metadata={"state": newest.state.value},
        )
    if newest.state is not RevisionState.STANDBY:
        raise WrongState(
            f"Revision {newest.number} is {newest.state.value.upper()}; calls are shared with one that is STANDBY, "
            "as the newest is once it is ready with the strategies blue_green and canary.",
            metadata={"state": newest.state.value},
        )


def check_shares(deployment: Deployment, traffic: Mapping[int, int]) -> None:
    """InvalidInput unless the weights are of the two revisions that run, and add to 100."""
    both = (deployment.active_revision, deployment.latest_revision)
    for number in traffic:
        if number not in both:
            raise InvalidInput.at("traffic", f"Revision {number} does not run; revisions {both[0]} and {both[1]} do.")
    if sum(traffic.values()) != ALL:
        raise InvalidInput.at("traffic", f"The weights add to {sum(traffic.values())}; they must add to {ALL}.")


async def save_traffic(work: UnitOfWork, before: Deployment, after: Deployment, etag: str) -> None:
    """Store a deployment with other shares, and with its revisions since when they have them; raises Stale."""
    await work.deployments.save(after, etag)
    await _remember(work, before, after, after.update_time)


async def is_on_its_way(work: UnitOfWork, deployment: Deployment, number: int) -> bool:
    """Whether going back to revision `number` (0: whichever) takes back a newer one that has not taken over."""
    newest, active = deployment.latest_revision, deployment.active_revision
    if deployment.stopped or active in (0, newest) or number not in (0, active):
        return False
    (revision,) = await work.deployments.revisions(deployment.id, [newest])
    return revision.state is not RevisionState.WITHDRAWN


async def without_newest(work: UnitOfWork, deployment: Deployment, now: datetime) -> Deployment:
    """The deployment as it is to be once its newest revision, which is marked, is taken back."""
    active, newest = deployment.active_revision, deployment.latest_revision
    (kept,) = await work.deployments.revisions(deployment.id, [active])
    after = replace(deployment, config=going_back(deployment, kept), traffic={active: ALL}, canary=None)
    await _remember(work, deployment, after, now)
    (taken,) = await work.deployments.revisions(deployment.id, [newest])
    await work.deployments.put_revision(withdrawn(taken))
    return after


async def _remember(work: UnitOfWork, before: Deployment, after: Deployment, now: datetime) -> None:
    revisions = await work.deployments.revisions(before.id, [before.active_revision, before.latest_revision])
    for revision in remember_shares(before.traffic, after.traffic, revisions, now):
        await work.deployments.put_revision(revision)
