"""A deployment whose replicas follow its calls: how many are wanted from now on, and what people are told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from easyml_server.domain.deployments import Condition, ConditionType, Deployment
from easyml_server.domain.scaling import Autoscaling, Recommendation

SCALING: Final = (ConditionType.SCALING_ACTIVE, ConditionType.SCALING_LIMITED)


def scaled(deployment: Deployment, recommended: Recommendation | None, now: datetime, *, settled: bool) -> Deployment:
    """The deployment with as many replicas as are recommended, and with the conditions that say so.

    Unless it is `settled`, nothing is taken away: until a new revision is ready, the one before keeps its size. Where
    the number stays, so does what was said of it: the calls change all the time.
    """
    told = {condition.type: condition for condition in deployment.conditions}
    others = tuple(condition for condition in deployment.conditions if condition.type not in SCALING)
    scaling, replicas = deployment.config.autoscaling, deployment.config.replicas
    if scaling is None or deployment.stopped:
        return replace(deployment, conditions=others)
    if recommended is not None:
        replicas = recommended.replicas if settled else max(recommended.replicas, replicas)
    active = told.get(ConditionType.SCALING_ACTIVE)
    if recommended is not None and replicas != deployment.config.replicas:
        active = _changed(scaling, replicas, recommended, now)
    elif active is None:
        active = _begun(scaling, replicas, now)
    limited = told.get(ConditionType.SCALING_LIMITED)
    if limited is None or recommended is not None:
        limited = _limited(scaling, recommended, now)
    return replace(
        deployment,
        config=replace(deployment.config, replicas=replicas),
        conditions=(*others, *(each.following(told.get(each.type)) for each in (active, limited))),
    )


def without_scaling(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """The conditions once somebody changed the scaling: what was said of it is no longer true."""
    return tuple(condition for condition in conditions if condition.type not in SCALING)


def _begun(scaling: Autoscaling, replicas: int, now: datetime) -> Condition:
    message = f"{_count(replicas)} for now, {scaling.min_replicas} to {scaling.max_replicas} as the calls need."
    return Condition(ConditionType.SCALING_ACTIVE, replicas > 0, "Begun", message, now)


def _changed(scaling: Autoscaling, replicas: int, recommended: Recommendation, now: datetime) -> Condition:
    if not replicas:
        message = (
            f"No call came for {scaling.cooldown_seconds} s, so no replica runs; the next one starts one, and waits."
        )
        return Condition(ConditionType.SCALING_ACTIVE, False, "NoCalls", message, now)
    message = (
        f"{_count(replicas)}: on average up to {recommended.in_flight:.1f} calls were in flight in the last "
        f"{scaling.cooldown_seconds} s, each replica is to have {scaling.target_requests_in_flight}, and there are to "
        f"be {scaling.min_replicas} to {scaling.max_replicas}."
    )
    return Condition(ConditionType.SCALING_ACTIVE, True, "FollowsCalls", message, now)


def _limited(scaling: Autoscaling, recommended: Recommendation | None, now: datetime) -> Condition:
    if recommended is not None and recommended.limited:
        message = f"The calls need more than {_count(scaling.max_replicas)}, which max_replicas allows."
        return Condition(ConditionType.SCALING_LIMITED, True, "TooManyCalls", message, now)
    message = "The calls need no more replicas than max_replicas allows."
    return Condition(ConditionType.SCALING_LIMITED, False, "WithinBounds", message, now)


def _count(replicas: int) -> str:
    return f"{replicas} replica" if replicas == 1 else f"{replicas} replicas"
