"""How a version is served: what is sensible for each environment, and what is wrong with what was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from easyml_server.domain.containers import beyond_this_machine, faults_of, faults_on_a_cluster, memory_fault
from easyml_server.domain.deployments import (
    Canary,
    CanaryAnalysis,
    CanaryStep,
    DeploymentConfig,
    DeploymentEnvironment,
    DeploymentTarget,
    RolloutStrategy,
)
from easyml_server.domain.errors import InvalidInput, Reason, Violation
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.selection import served_form

FIVE_MINUTES = 300
CAREFUL = Canary(
    steps=(CanaryStep(10, FIVE_MINUTES), CanaryStep(50, FIVE_MINUTES)),
    analysis=CanaryAnalysis(max_error_percent=1, max_latency_ratio=2),
)


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong: the path of the field in the request, and a sentence that says the way out."""

    field: str
    message: str
    reason: Reason = Reason.INVALID_FIELD
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


def template(environment: DeploymentEnvironment, max_replicas: int) -> DeploymentConfig:
    """One replica to try things; a second one where an end of the first must not be noticed.

    In production a new revision has to earn its calls.
    """
    match environment:
        case DeploymentEnvironment.DEVELOPMENT:
            return DeploymentConfig(environment)
        case DeploymentEnvironment.STAGING:
            return DeploymentConfig(environment, replicas=min(2, max_replicas))
        case DeploymentEnvironment.PRODUCTION:
            return DeploymentConfig(
                environment, strategy=RolloutStrategy.CANARY, replicas=min(2, max_replicas), canary=CAREFUL
            )


def problems_of(
    config: DeploymentConfig,
    barred: Mapping[DeploymentTarget, str],
    max_replicas: int,
    scaling: str = "config.scaling.",
) -> Iterator[ConfigProblem]:
    """Everything that is wrong, not only the first; `barred` are targets that a server has not, and why.

    `scaling` is the path before the fields of the scaling.
    """
    if config.target in barred:
        yield ConfigProblem("config.target", barred[config.target])
    yield from _problems_of_scaling(config, max_replicas, scaling)
    if config.canary is not None:
        yield from _problems_of_canary(config.canary, config.strategy)
    broken = list(faults_of(config.container))
    named = {field for field, _ in broken}
    of_target = beyond_this_machine if config.target is DeploymentTarget.LOCAL else faults_on_a_cluster
    broken += [each for each in of_target(config.container) if each[0] not in named]
    for field, message in broken:
        yield ConfigProblem(f"config.container.{field}", message)


def problems_with(config: DeploymentConfig, version: ModelVersion) -> Iterator[ConfigProblem]:
    """What is wrong with serving this version so."""
    if fault := memory_fault(config.container, served_form(version).size_bytes):
        yield ConfigProblem("config.container.memory_limit", fault)


def refuse(problems: Sequence[ConfigProblem]) -> None:
    """InvalidInput that names each of them, if there are any."""
    if not problems:
        return
    first, *others = problems
    if not others:
        raise InvalidInput.at(first.field, first.message, first.reason, first.metadata)
    raise InvalidInput(
        f"{first.message} And {len(others)} more, each named by its field: {', '.join(each.field for each in others)}.",
        violations=[Violation(each.field, each.message) for each in problems],
    )


def _problems_of_scaling(config: DeploymentConfig, max_replicas: int, path: str) -> Iterator[ConfigProblem]:
    scaling = config.autoscaling
    if config.replicas > max_replicas:
        yield _too_many(f"{path}replicas", max_replicas)
    if scaling is None:
        return
    if config.replicas and scaling.max_replicas:
        yield ConfigProblem(
            f"{path}replicas",
            f"With max_replicas ({scaling.max_replicas}) calls decide how many replicas run; leave one of the two out.",
        )
    if scaling.target_cpu_percent:
        yield ConfigProblem(
            f"{path}target_cpu_percent",
            f"The {config.target} target counts calls, and no processors; leave it out, or give "
            "target_requests_in_flight.",
        )
    if not scaling.max_replicas:
        yield ConfigProblem(
            f"{path}max_replicas",
            "The other fields of the scaling say how replicas follow the calls; give the most there may be, or leave"
            " them out for a fixed number.",
        )
    elif scaling.min_replicas > scaling.max_replicas:
        said = f"min_replicas ({scaling.min_replicas}) is above max_replicas ({scaling.max_replicas})"
        yield ConfigProblem(f"{path}min_replicas", f"{said}; lower it, or raise the other.")
        yield ConfigProblem(f"{path}max_replicas", f"{said}; raise it, or lower the other.")
    if scaling.max_replicas > max_replicas:
        yield _too_many(f"{path}max_replicas", max_replicas)


def _too_many(field: str, max_replicas: int) -> ConfigProblem:
    return ConfigProblem(
        field,
        f"A deployment has at most {max_replicas} replicas (EASYML_REPLICAS).",
        Reason.TOO_LARGE,
        {"limit": "EASYML_REPLICAS", "maximum": str(max_replicas)},
    )


def _problems_of_canary(canary: Canary, strategy: RolloutStrategy) -> Iterator[ConfigProblem]:
    if strategy is not RolloutStrategy.CANARY:
        yield ConfigProblem("config.canary", f"It says nothing for the strategy {strategy.value}; leave it out.")
    for index, (one, next) in enumerate(pairwise(canary.steps), 1):
        if next.weight <= one.weight:
            yield ConfigProblem(f"config.canary.steps[{index}].weight", "Each step needs more weight than the last.")
