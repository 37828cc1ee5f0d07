"""How a version is served, for people: a configuration, and what is wrong with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyml_client.cli.output import complain, print_done, print_json, print_one
from easyml_client.cli.scaling import told_scaling

if TYPE_CHECKING:
    from easyml_client.resources.deployments import Canary, ConfigValidation, ContainerConfig, DeploymentConfig


def print_config(config: DeploymentConfig, *, as_json: bool) -> None:
    """Each setting on a line."""
    probes = config.probes
    lines = {
        "Environment": config.environment,
        "Target": config.target,
        "Strategy": config.strategy,
        "Replicas": config.scaling and config.scaling.replicas,
        "Scaling": told_scaling(config.scaling),
        "Ready within": probes and f"{probes.startup_seconds} s",
        "Asked": probes
        and f"every {probes.period_seconds} s, {probes.failure_threshold} times without an answer in "
        f"{probes.timeout_seconds} s end it",
        "Canary": _canary(config.canary),
        **_container(config.container),
    }
    print_one(config, {name: value for name, value in lines.items() if value}, as_json=as_json)


def told_problems(validation: ConfigValidation, *, as_json: bool) -> int:
    """All that is wrong, each on a line; the exit code."""
    if as_json:
        print_json(validation)
    elif validation.problems:
        for problem in validation.problems:
            complain(f"{problem.field}: {problem.message}")
    else:
        print_done(validation, "Nothing is wrong with it.", as_json=False)
    return 1 if validation.problems else 0


def _container(container: ContainerConfig | None) -> dict[str, object]:
    if container is None:
        return {}
    return {
        "Image": container.base_image,
        "Memory": _amounts(container.memory_request, container.memory_limit),
        "Processors": _amounts(container.cpu_request, container.cpu_limit),
        "Variables": container.environment,
        "Secrets": ", ".join(f"{each.variable} from {each.secret}/{each.key}" for each in container.secrets),
    }


def _amounts(request: str | None, limit: str | None) -> str:
    """What is set aside, and what may be had."""
    aside = f"{request} set aside" if request else ""
    return ", ".join(each for each in (limit, aside) if each)


def _canary(canary: Canary | None) -> str:
    if canary is None:
        return ""
    steps = [
        f"{step.weight} % for {step.duration_seconds} s" if step.duration_seconds else f"{step.weight} %"
        for step in canary.steps
    ]
    limits = canary.analysis
    if limits is None:
        return ", ".join(steps)
    slower = f" or {limits.max_latency_ratio:g} times the p99" if limits.max_latency_ratio else ""
    return f"{', '.join(steps)}; taken back by {limits.max_error_percent:g} % more errors{slower}"
