"""`easyml deploy` and `easyml deployments`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.app import group, single
from easyml_client.cli.common import (
    EVERYWHERE,
    Common,
    Consent,
    Labels,
    ProjectOption,
    chosen_project,
    connected,
    labels_of,
    pairs,
    project_for,
)
from easyml_client.cli.deployment_configs import print_config, told_problems
from easyml_client.cli.deployment_logs import logs
from easyml_client.cli.deployment_metrics import metrics
from easyml_client.cli.output import UsageError, print_done, print_list, print_one, print_table
from easyml_client.cli.selection import ANY, Criteria, asked_for

if TYPE_CHECKING:
    from easyml_client.client import EasyML
    from easyml_client.resources.deployments import Deployment
    from easyml_client.resources.models import ModelVersion

Environment = Annotated[str | None, Parameter(name=["--environment", "-e"])]
DEPLOYMENTS = {
    "NAME": lambda each: each.name,
    "STATE": lambda each: each.state,
    "REPLICAS": lambda each: f"{each.ready_replicas}/{each.wanted_replicas}",
    "REVISION": lambda each: each.active_revision or "-",
    "ENVIRONMENT": lambda each: each.config.environment,
    "ID": lambda each: each.id,
}
REVISIONS = {
    "REVISION": lambda each: each.number,
    "MODEL": lambda each: f"{each.model_name}:{each.model_version}",
    "STATE": lambda each: each.state,
    "MADE": lambda each: each.create_time,
    "ANSWERED FROM": lambda each: each.activate_time,
    "UNTIL": lambda each: each.retire_time,
    "TRAFFIC": lambda each: " ".join(f"{change.weight}%" for change in each.traffic),
}
app = group("deployments", "Model versions made callable: list, watch, scale, roll back, stop.")


def deploy(
    model: str = "",
    /,
    *,
    best: Annotated[str | None, Parameter(help="Serve the version that is best at this metric: accuracy.")] = None,
    criteria: Criteria = ANY,
    name: str | None = None,
    environment: Environment = None,
    template: bool = False,
    replicas: int | None = None,
    strategy: str | None = None,
    step: Annotated[tuple[str, ...], Parameter(name="--step", negative=())] = (),
    max_error_percent: float | None = None,
    max_latency_ratio: float | None = None,
    memory: Annotated[str | None, Parameter(name="--memory-limit")] = None,
    env: Annotated[tuple[str, ...], Parameter(name="--env", negative=())] = (),
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

    :param model: NAME (the newest version), NAME:3, NAME@alias or the id of a version; with --best NAME, or nothing.
    :param name: Name of the deployment; the model's name if left out.
    :param environment: development (the default), staging or production; the model's alias of that name moves along.
    :param template: Begin with what is sensible for the environment (`easyml deployments template`); options change it.
    :param replicas: How many processes answer; 1 unless there are some already.
    :param strategy: rolling (the default); recreate, which stops the old revision first; blue_green, which waits until
        it is promoted; canary, which gives the new revision calls step by step.
    :param step: A step of a canary: WEIGHT:SECONDS, or WEIGHT to wait until it is promoted; once for each.
    :param max_error_percent: Take a canary back when so many calls of a hundred more fail than of the old revision.
    :param max_latency_ratio: Take a canary back when the p99 of its latency is so many times that of the old revision.
    :param memory: Resident memory a replica may have, such as 512Mi; above it it is ended, and started again.
    :param env: KEY=VALUE, a variable of the replicas' environment; can be repeated.
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
            "strategy": strategy,
            "canary": _canary(step, max_error_percent, max_latency_ratio),
            "container": _container(memory, env),
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
            said = (
                f"Would serve {version.model_name}:{version.version} as revision {planned.latest_revision} of {wanted}."
            )
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
        return _follow(client, made, wait=wait, as_json=common.json)


deploy_app = single("deploy", deploy)
app.command(metrics)
app.command(logs)


@app.command(name="list")
def list_(*, prefix: str = "", project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """List the deployments of a project, newest first.

    Example: `easyml deployments list`

    :param prefix: Only deployments whose name starts with this.
    """
    with connected(common) as client:
        found = client.deployments.list(chosen_project(client, project), name_prefix=prefix)
        print_list(found, DEPLOYMENTS, as_json=common.json, empty="No deployments yet: `easyml deploy MODEL`.")


@app.command
def show(deployment: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Show a deployment: what answers, every process, and why something does not.

    Example: `easyml deployments show churn`

    :param deployment: Name or id.
    """
    with connected(common) as client:
        _print(_get(client, deployment, project), as_json=common.json)


@app.command
def watch(deployment: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Show a deployment whenever it changes, until Ctrl-C or until it is deleted.

    Example: `easyml deployments watch churn`

    :param deployment: Name or id.
    """
    from easyml_client.cli.rollouts import shown

    with connected(common) as client:
        for _ in shown(client.deployments.watch(_get(client, deployment, project)), as_json=common.json):
            pass


@app.command
def template(environment: str = "development", /, *, common: Common = EVERYWHERE) -> None:
    """Show what is sensible for an environment; `easyml deploy --template` begins with it.

    Example: `easyml deployments template production`

    :param environment: development, staging or production.
    """
    with connected(common) as client:
        print_config(client.deployments.template(environment), as_json=common.json)


@app.command
def revisions(deployment: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """List what a deployment served, newest first.

    Example: `easyml deployments revisions churn`

    :param deployment: Name or id.
    """
    with connected(common) as client:
        found = client.deployments.revisions(_get(client, deployment, project))
        print_list(found, REVISIONS, as_json=common.json, empty="No revisions.")


@app.command
def scale(deployment: str, replicas: int, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> int:
    """Change the number of replicas, and wait until they answer.

    Example: `easyml deployments scale churn 3`

    :param deployment: Name or id.
    :param replicas: How many processes answer.
    """
    with connected(common) as client:
        changed = client.deployments.scale(_get(client, deployment, project), replicas)
        return _follow(client, changed, wait=True, as_json=common.json)


@app.command
def rollback(
    deployment: str, revision: int = 0, /, *, project: ProjectOption = None, common: Common = EVERYWHERE
) -> int:
    """Go back to what an earlier revision served, and wait until it answers.

    Example: `easyml deployments rollback churn 2`

    :param deployment: Name or id.
    :param revision: Number of the revision; the one that answered before if left out.
    """
    with connected(common) as client:
        changed = client.deployments.rollback(_get(client, deployment, project), revision).deployment
        return _follow(client, changed, wait=True, as_json=common.json)


@app.command
def promote(
    deployment: str, /, *, full: bool = False, project: ProjectOption = None, common: Common = EVERYWHERE
) -> int:
    """Give a revision that stands by the calls of its next step, and wait for what comes of it.

    Example: `easyml deployments promote churn --full`

    :param deployment: Name or id.
    :param full: All calls at once, whatever steps are left.
    """
    with connected(common) as client:
        changed = client.deployments.promote(_get(client, deployment, project), full=full).deployment
        return _follow(client, changed, wait=True, as_json=common.json)


@app.command
def traffic(
    deployment: str, shares: tuple[str, ...], /, *, project: ProjectOption = None, common: Common = EVERYWHERE
) -> None:
    """Share the calls by hand between the revision that answers and a newer one that stands by.

    Example: `easyml deployments traffic churn 1=90 2=10`

    :param deployment: Name or id.
    :param shares: REVISION=WEIGHT, of each; together 100.
    """
    with connected(common) as client:
        changed = client.deployments.traffic(_get(client, deployment, project), _weights(shares))
        said = ", ".join(f"{each.weight} of 100 to revision {each.revision}" for each in changed.traffic)
        print_done(changed, f"Calls of {changed.name}: {said}.", as_json=common.json)


@app.command
def stop(deployment: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Stop all replicas; the deployment stays, and deploying or rolling back starts it again.

    Example: `easyml deployments stop churn`

    :param deployment: Name or id.
    """
    with connected(common) as client:
        stopped = client.deployments.stop(_get(client, deployment, project))
        print_done(stopped, f"Stopped {stopped.name}.", as_json=common.json)


@app.command(name="delete")
def delete_(
    deployment: str, /, *, yes: Consent = False, project: ProjectOption = None, common: Common = EVERYWHERE
) -> None:
    """Stop all replicas, and forget the deployment with its revisions.

    Example: `easyml deployments delete churn --yes`

    :param deployment: Name or id.
    """
    with connected(common) as client:
        found = _get(client, deployment, project)
        if not yes:
            raise UsageError(
                f"This ends {found.name}, which {found.ready_replicas} replicas answer for now. Add --yes to do it."
            )
        client.deployments.delete(found)
        print_done(found, f"Deleted {found.name}.", as_json=common.json)


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


def _get(client: EasyML, deployment: str, project: str | None) -> Deployment:
    return client.deployments.get(deployment, project=project_for(client, deployment, project))


def _find(client: EasyML, project: str, name: str) -> Deployment | None:
    found = client.deployments.list(project, name_prefix=name)
    return next((each for each in found if each.name == name), None)


def _follow(client: EasyML, deployment: Deployment, *, wait: bool, as_json: bool) -> int:
    from easyml_client.cli.output import complain
    from easyml_client.cli.rollouts import until_it_arrives

    if not wait:
        come_back = f"easyml deployments watch {deployment.name}"
        sentence = f"Revision {deployment.latest_revision} of {deployment.name} is on its way: {come_back}"
        print_done(deployment, sentence, as_json=as_json)
        return 0
    code = until_it_arrives(client, deployment, as_json=as_json)
    if code == 0 and not (as_json or deployment.active_revision):
        complain(f"Ask it with: easyml predict --deployment {deployment.name} --row COLUMN=VALUE …")
    return code


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


def _container(memory: str | None, variables: tuple[str, ...]) -> dict[str, Any] | None:
    """What replicas have around them, if anything was said."""
    container: dict[str, Any] = {}
    if memory is not None:
        container["memory_limit"] = memory
    if variables:
        container["environment"] = pairs("--env", variables)
    return container or None


def _step(text: str) -> dict[str, int]:
    weight, _, seconds = text.partition(":")
    try:
        return {"weight": int(weight), "duration_seconds": int(seconds or 0)}
    except ValueError as error:
        raise UsageError(f"A step is WEIGHT:SECONDS, such as 10:60, not {text!r}.") from error


def _weights(shares: tuple[str, ...]) -> dict[int, int]:
    weights: dict[int, int] = {}
    for share in shares:
        revision, _, weight = share.partition("=")
        try:
            weights[int(revision)] = int(weight)
        except ValueError as error:
            raise UsageError(f"A share is REVISION=WEIGHT, such as 2=10, not {share!r}.") from error
    return weights


def _print(deployment: Deployment, *, as_json: bool) -> None:
    config = deployment.config
    lines = {
        "Name": deployment.name,
        "Id": deployment.id,
        "Description": deployment.description,
        "Labels": deployment.labels,
        "State": deployment.state,
        "Environment": config and config.environment,
        "Strategy": config and config.strategy,
        "Revision": f"{deployment.active_revision or 'none'} answers, {deployment.latest_revision} is the newest",
        "Traffic": ", ".join(f"{each.weight} of 100 to revision {each.revision}" for each in deployment.traffic),
        "Replicas": f"{deployment.ready_replicas} of {deployment.wanted_replicas} ready",
        "Created": deployment.create_time,
    }
    print_one(deployment, lines, as_json=as_json)
    if as_json:
        return
    print()
    print_table(
        ["REVISION", "REPLICA", "STATE", "ENDPOINT", "RESTARTS", "LAST FAILURE"],
        [
            [
                each.revision,
                each.id,
                each.state,
                each.endpoint,
                each.restarts,
                each.last_failure.message if each.last_failure else "",
            ]
            for each in deployment.replicas
        ],
    )
    print()
    print_table(
        ["CONDITION", "TRUE", "SINCE", "WHY"],
        [[each.type, each.status, each.transition_time, each.message] for each in deployment.conditions],
    )
