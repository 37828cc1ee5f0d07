"""`easyml deployments`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyml_client.cli.app import group
from easyml_client.cli.common import (
    EVERYWHERE,
    Common,
    Consent,
    ProjectOption,
    chosen_project,
    connected,
    project_for,
)
from easyml_client.cli.deployment_configs import print_config
from easyml_client.cli.deployment_logs import logs
from easyml_client.cli.deployment_metrics import metrics
from easyml_client.cli.manifests import render
from easyml_client.cli.output import UsageError, print_done, print_list, print_one, print_table
from easyml_client.cli.rollouts import follow
from easyml_client.cli.scaling import FIXED, ScalingOptions, scaling_of, told_scaling

if TYPE_CHECKING:
    from easyml_client.client import EasyML
    from easyml_client.resources.deployments import Deployment

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


app.command(metrics)
app.command(logs)
app.command(render)


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
def scale(
    deployment: str,
    replicas: int = 0,
    /,
    *,
    scaling: ScalingOptions = FIXED,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> int:
    """Change the number of replicas, or how they follow the calls, and wait until they answer.

    Example: `easyml deployments scale churn 3`

    Example: `easyml deployments scale churn --min-replicas 0 --max-replicas 5`

    :param deployment: Name or id.
    :param replicas: How many processes answer.
    """
    asked = scaling_of(scaling)
    if not (replicas or asked):
        raise UsageError("Say how many: a number of replicas, or --max-replicas and what else is to change.")
    with connected(common) as client:
        changed = client.deployments.scale(_get(client, deployment, project), replicas, scaling=asked)
        if changed.state in ("stopping", "stopped"):
            start = f"easyml deployments rollback {changed.name} {changed.latest_revision}"
            print_done(
                changed, f"{changed.name} is stopped, and is so once it is started: {start}", as_json=common.json
            )
            return 0
        return follow(client, changed, wait=True, as_json=common.json)


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
        return follow(client, changed, wait=True, as_json=common.json)


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
        return follow(client, changed, wait=True, as_json=common.json)


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


def _get(client: EasyML, deployment: str, project: str | None) -> Deployment:
    return client.deployments.get(deployment, project=project_for(client, deployment, project))


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
        "Target": config and config.target,
        "Strategy": config and config.strategy,
        "Revision": f"{deployment.active_revision or 'none'} answers, {deployment.latest_revision} is the newest",
        "Traffic": ", ".join(f"{each.weight} of 100 to revision {each.revision}" for each in deployment.traffic),
        "Replicas": f"{deployment.ready_replicas} of {deployment.wanted_replicas} ready",
        "Scaling": told_scaling(config.scaling if config else None),
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
