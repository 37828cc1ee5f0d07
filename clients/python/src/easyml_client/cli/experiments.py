"""`easyml experiments`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easyml_client.cli.app import group
from easyml_client.cli.common import (
    EVERYWHERE,
    Common,
    Consent,
    DryRun,
    Labels,
    ProjectOption,
    chosen_project,
    connected,
    delete,
    experiment_named,
    labels_of,
)
from easyml_client.cli.output import complain, print_done, print_json, print_list, print_one, print_table

if TYPE_CHECKING:
    from easyml_client.client import EasyML, Training
    from easyml_client.resources.experiments import Experiment

app = group("experiments", "Trainings and what came out: list, watch, compare.")


def _primary(experiment: Experiment) -> str:
    """The value on the test rows that the experiment is judged by."""
    name = experiment.spec.objective.metric if experiment.spec and experiment.spec.objective else None
    value = experiment.metric(name) if name else None
    return "" if value is None else f"{name} {value:.4g}"


COLUMNS = {
    "NAME": lambda experiment: experiment.name,
    "STATE": lambda experiment: experiment.state,
    "DATASET": lambda experiment: experiment.dataset_name,
    "ALGORITHM": lambda experiment: experiment.spec.algorithm if experiment.spec else "",
    "METRIC": _primary,
    "CREATED": lambda experiment: experiment.create_time,
    "ID": lambda experiment: experiment.id,
}


@app.command(name="list")
def list_(
    *,
    state: tuple[str, ...] = (),
    dataset: str | None = None,
    algorithm: str = "",
    label: Labels = (),
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """List the experiments of a project, newest first.

    Example: `easyml experiments list --state running --state queued`

    :param state: queued, running, cancelling, succeeded, failed or cancelled; can be repeated.
    :param dataset: Only those on this dataset, by name or id.
    :param algorithm: Only those of this algorithm.
    """
    with connected(common) as client:
        found = client.experiments.list(
            chosen_project(client, project),
            states=state,
            dataset=dataset,
            algorithm=algorithm,
            labels=labels_of(label),
            view="full",
        )
        print_list(
            found, COLUMNS, as_json=common.json, empty="No experiments yet: `easyml train ALGORITHM --dataset NAME`."
        )


@app.command
def show(experiment: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Show an experiment: what was asked, what came out.

    Example: `easyml experiments show latest`

    :param experiment: Id, name (the newest of that name), or latest.
    """
    with connected(common) as client:
        found = experiment_named(client, experiment, project)
        print_experiment(client.experiments.get(found), as_json=common.json)


@app.command
def watch(experiment: str, /, *, after: int = 0, project: ProjectOption = None, common: Common = EVERYWHERE) -> int:
    """Show how a training goes, until it ends; Ctrl-C leaves it running.

    Example: `easyml experiments watch latest`

    :param experiment: Id, name (the newest of that name), or latest.
    :param after: Sequence of the last event you have seen; with --json each line has one.
    """
    with connected(common) as client:
        found = client.trainings.get(experiment_named(client, experiment, project))
        return watch_to_the_end(client, found, after=after, as_json=common.json)


def watch_to_the_end(client: EasyML, training: Training, *, after: int = 0, as_json: bool) -> int:
    """Shows a training; the exit code says whether it succeeded."""
    from easyml_client.cli import live

    finished = live.watch(training, after_sequence=after, as_json=as_json)
    if finished is None:
        return 0 if training.refresh().state == "succeeded" else 1
    if finished.failure:
        complain(f"The training failed: {finished.failure.message}")
    elif finished.model_version_id and not as_json:
        version = client.models.get(finished.model_version_id, view="basic")
        complain(f"Look at the model with: easyml models show {version.model_name}:{version.version}")
    return 0 if finished.state == "succeeded" else 1


@app.command
def compare(
    *experiments: str,
    metric: str | None = None,
    partition: str | None = None,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Put experiments of one project side by side, best first.

    Example: `easyml experiments compare "svc on iris" latest --metric f1_macro`

    :param experiments: Ids, names (the newest of that name) or latest; at least two.
    :param metric: Metric to rank by; that of the first experiment if left out.
    :param partition: test (if left out), validation or train.
    """
    with connected(common) as client:
        found = [experiment_named(client, each, project) for each in experiments]
        comparison = client.experiments.compare(found, metric=metric, partition=partition)
    if common.json:
        print_json(comparison)
        return
    algorithms = {each.experiment.spec.algorithm for each in comparison.experiments if each.experiment.spec}
    # Settings of different algorithms have nothing in common; side by side they would only fill the screen.
    differing = comparison.differing_hyperparameters if len(algorithms) == 1 else ()
    rows = [
        [
            compared.rank or "-",
            compared.experiment.name,
            compared.value,
            compared.experiment.spec and compared.experiment.spec.algorithm,
            compared.duration,
            *(_setting(compared.experiment, name) for name in differing),
            compared.experiment.id,
        ]
        for compared in comparison.experiments
    ]
    title = f"{comparison.partition} {comparison.metric}".upper()
    print_table(["RANK", "NAME", title, "ALGORITHM", "TIME", *differing, "ID"], rows)
    if not comparison.same_test_rows:
        complain(
            "Note: they were tested on different rows, so the values do not compare. "
            "To test on the same rows, train with --split-like ID."
        )


def _setting(experiment: Any, name: str) -> Any:
    return ((experiment.spec and experiment.spec.hyperparameters) or {}).get(name)


@app.command
def cancel(experiment: str, /, *, project: ProjectOption = None, common: Common = EVERYWHERE) -> None:
    """Ask a training to stop; what it reported is kept.

    Example: `easyml experiments cancel latest`

    :param experiment: Id, name (the newest of that name), or latest.
    """
    with connected(common) as client:
        found = client.trainings.cancel(experiment_named(client, experiment, project))
        print_done(found, f"{found.name} is {found.state}.", as_json=common.json)


@app.command(name="delete")
def delete_(
    experiment: str,
    /,
    *,
    dry_run: DryRun = False,
    yes: Consent = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Delete an ended experiment with its events; its model version stays.

    Example: `easyml experiments delete 7c0f6a9e-6c2e-4b1f-8a55-0e6d1f2b3c4d --yes`

    :param experiment: Id, name (the newest of that name), or latest.
    """
    with connected(common) as client:
        found = client.experiments.get(experiment_named(client, experiment, project))
        delete(
            f"experiment {found.name}",
            lambda validate_only: client.experiments.delete(found, validate_only=validate_only),
            dry_run=dry_run,
            yes=yes,
            as_json=common.json,
        )


def print_experiment(experiment: Any, *, as_json: bool) -> None:
    """One experiment and its metrics."""
    spec = experiment.spec
    lines = {
        "Name": experiment.name,
        "Id": experiment.id,
        "State": experiment.state,
        "Because": experiment.failure and experiment.failure.message,
        "Place in the queue": experiment.queue_position or None,
        "Dataset": experiment.dataset_name,
        "Target": spec and spec.target,
        "Algorithm": spec and spec.algorithm,
        "Settings": spec and spec.hyperparameters,
        "Seed": spec and spec.random_seed,
        "Rows": f"{experiment.train_rows} learned from, {experiment.test_rows} tested on"
        if experiment.train_rows
        else None,
        "Model version": experiment.model_version_id,
        "MLflow run": experiment.mlflow_run_id,
        "Labels": experiment.labels,
        "Started": experiment.start_time,
        "Ended": experiment.end_time,
    }
    print_one(experiment, lines, as_json=as_json)
    if as_json:
        return
    print_metrics(experiment.metrics)
    for warning in experiment.warnings:
        complain(f"Note: {warning.message}")


def print_metrics(metrics: Any) -> None:
    """One row per metric, one column per part of the rows."""
    partitions = [part for part in ("train", "validation", "test") if any(m.partition == part for m in metrics)]
    if not partitions:
        return
    values = {(m.metric, m.partition): m.value for m in metrics}
    names = dict.fromkeys(m.metric for m in metrics)
    print()
    print_table(
        ["METRIC", *(part.upper() for part in partitions)],
        [[name, *(values.get((name, part)) for part in partitions)] for name in names],
    )
