"""`easyml deploy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.app import single
from easyml_client.cli.common import (
    EVERYWHERE,
    Common,
    Labels,
    ProjectOption,
    chosen_project,
    connected,
    labels_of,
)
from easyml_client.cli.containers import BARE, ContainerOptions, container_of
from easyml_client.cli.deployment_configs import told_problems
from easyml_client.cli.output import UsageError, print_done
from easyml_client.cli.rollouts import follow
from easyml_client.cli.scaling import FIXED, ScalingOptions, scaling_of
from easyml_client.cli.selection import ANY, Criteria, asked_for

if TYPE_CHECKING:
    from easyml_client.client import EasyML
    from easyml_client.resources.deployments import Deployment
    from easyml_client.resources.models import ModelVersion

Environment = Annotated[str | None, Parameter(name=["--environment", "-e"])]


def deploy(
    model: str = "",
    /,
    *,
    best: Annotated[str | None, Parameter(help="Serve the version that is best at this metric: accuracy.")] = None,
    criteria: Criteria = ANY,
    name: str | None = None,
    environment: Environment = None,
    target: str | None = None,
    template: bool = False,
    replicas: int | None = None,
    scaling: ScalingOptions = FIXED,
    strategy: str | None = None,
    step: Annotated[tuple[str, ...], Parameter(name="--step", negative=())] = (),
    max_error_percent: float | None = None,
    max_latency_ratio: float | None = None,
    container: ContainerOptions = BARE,
    description: str = "",
    label: Labels = (),
    validate: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(name="--dry-run")] = False,
    wait: Annotated[bool, Parameter(negative="--no-wait")] = True,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> int:
    """Make a model version callable, and wait until it answers; a deployment of that name gets a new revision.

    Example: `easyml deploy churn:3 --name churn --environment production --replicas 2`

    Example: `easyml deploy churn --best accuracy --threshold 0.9`

    Example: `easyml deploy churn --target kubernetes --replicas 3 --cpu-request 500m --memory-limit 1Gi`

    Example: `easyml deploy churn --min-replicas 0 --max-replicas 3 --target-in-flight 8`

    :param model: NAME (the newest version), NAME:3, NAME@alias or the id of a version; with --best NAME, or nothing.
    :param name: Name of the deployment; the model's name if left out.
    :param environment: development (the default), staging or production; the model's alias of that name moves along.
    :param target: local (the default), which is beside the server; kubernetes, the cluster that the server was given.
    :param template: Begin with what is sensible for the environment (`easyml deployments template`); options change it.
    :param replicas: How many processes answer; 1 unless there are some already. With --max-replicas the calls decide.
    :param strategy: rolling (the default, without --step); recreate, which stops the old revision first; blue_green,
        which waits until it is promoted; canary, which gives the new revision calls step by step.
    :param step: A step of a canary, which it makes of it: WEIGHT:SECONDS, or WEIGHT to wait until it is promoted; once
        for each.
    :param max_error_percent: Take a canary back when so many calls of a hundred more fail than of the old revision.
    :param max_latency_ratio: Take a canary back when the p99 of its latency is so many times that of the old revision.
    :param description: What it is for.
    :param validate: Say all that is wrong with it, not only the first; nothing is started.
    :param dry_run: Check, and say what would happen; nothing is started.
    :param wait: Show it until it answers.
    """
    with connected(common) as client:
        of_project = chosen_project(client, project)
        version = _version(client, of_project, model, best, criteria)
        wanted = name or version.model_name
        there = _find(client, of_project, wanted)
        settings: dict[str, Any] = {
            "environment": environment,
            "target": target,
            "strategy": strategy,
            "canary": _canary(step, max_error_percent, max_latency_ratio),
            "container": container_of(container),
            "scaling": scaling_of(scaling),
            "config": client.deployments.template(environment or _environment(there)) if template else None,
        }
        if validate:
            settings["config"] = settings["config"] or (there and there.config)
            found = client.deployments.validate_config(of_project, version, replicas=replicas or 0, **settings)
            return told_problems(found, as_json=common.json)
        if dry_run:
            if there is None:
                planned = client.deployments.validate(of_project, wanted, version, replicas=replicas or 0, **settings)
            else:
                update = client.deployments.update(there, version, replicas=replicas, validate_only=True, **settings)
                planned = update.deployment
            served = f"{version.model_name}:{version.version} as revision {planned.latest_revision} of {wanted}"
            how = f", by {planned.config.strategy}" if planned.config else ""
            said = f"Would serve {served}{how}."
            print_done(planned, said, as_json=common.json)
            return 0
        if there is None:
            made = client.deployments.create(
                of_project,
                wanted,
                version,
                replicas=replicas or 0,
                description=description,
                labels=labels_of(label),
                **settings,
            ).deployment
        else:
            made = client.deployments.update(there, version, replicas=replicas, **settings).deployment
        return follow(client, made, wait=wait, as_json=common.json)


app = single("deploy", deploy)


def _version(client: EasyML, project: str, model: str, best: str | None, criteria: Criteria) -> ModelVersion:
    """The version that is named, or the best."""
    if best is not None:
        return client.models.select(project, asked_for(best, model, criteria)).model_version
    if criteria != ANY:
        raise UsageError("These options choose between versions; say what the best one is best at: --best METRIC.")
    if not model:
        raise UsageError("Say what to serve: a model, or --best METRIC.")
    return client.models.get(model, project=project)


def _environment(deployment: Deployment | None) -> str | None:
    return deployment.config.environment if deployment and deployment.config else None


def _find(client: EasyML, project: str, name: str) -> Deployment | None:
    found = client.deployments.list(project, name_prefix=name)
    return next((each for each in found if each.name == name), None)


def _canary(
    steps: tuple[str, ...], max_error_percent: float | None, max_latency_ratio: float | None
) -> dict[str, Any] | None:
    """The settings of a canary, if there are any."""
    canary: dict[str, Any] = {}
    if steps:
        canary["steps"] = [_step(step) for step in steps]
    if max_error_percent is not None or max_latency_ratio is not None:
        # Without a limit for errors, only as many may fail as of the other.
        canary["analysis"] = {"max_error_percent": max_error_percent or 0, "max_latency_ratio": max_latency_ratio or 0}
    return canary or None


def _step(text: str) -> dict[str, int]:
    weight, _, seconds = text.partition(":")
    try:
        return {"weight": int(weight), "duration_seconds": int(seconds or 0)}
    except ValueError as error:
        raise UsageError(f"A step is WEIGHT:SECONDS, such as 10:60, not {text!r}.") from error
