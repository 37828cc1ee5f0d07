"""`easyml train`."""

from __future__ import annotations

from typing import Annotated, Any

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
    settings,
)
from easyml_client.cli.output import UsageError, print_done, print_one, size


def train(
    algorithm: str,
    /,
    *,
    dataset: Annotated[str, Parameter(name=["--dataset", "-d"])],
    target: Annotated[str, Parameter(name=["--target", "-t"])] = "",
    set_: Annotated[tuple[str, ...], Parameter(name=["--set", "-s"])] = (),
    feature: tuple[str, ...] = (),
    task: str | None = None,
    test_size: float | None = None,
    split: str | None = None,
    split_like: str | None = None,
    cross_validation: Annotated[int | None, Parameter(name=["--cross-validation", "--cv"])] = None,
    metric: str | None = None,
    positive_class: str = "",
    balance_classes: bool = False,
    weight_column: str = "",
    seed: int | None = None,
    model_name: str = "",
    max_seconds: float | None = None,
    name: str = "",
    label: Labels = (),
    dry_run: bool = False,
    watch: Annotated[bool, Parameter(name=["--watch", "-w"])] = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> int:
    """Train a model on a dataset.

    Example: `easyml train random_forest --dataset customers --target churned --set n_estimators=200 --watch`

    :param algorithm: Name, as in `easyml algorithms list`.
    :param dataset: Name or id of the dataset.
    :param target: Column to predict; the one with role target if left out.
    :param set_: SETTING=VALUE of the algorithm; can be repeated.
    :param feature: Column to learn from; can be repeated. All features if left out.
    :param task: classification or regression; told by the target if left out.
    :param test_size: Share of rows to test on, 0.1 to 0.5; 0.2 if left out.
    :param split: random, stratified, group, time, group:COLUMN, time:COLUMN or column:COLUMN=VALUE,VALUE.
    :param split_like: Id of an experiment: test on the same rows.
    :param cross_validation: Folds to score, before the final fit.
    :param metric: What versions are compared by: f1_macro, roc_auc … for classes; rmse, mae, r2 … for numbers.
    :param positive_class: Class that counts as positive, where there are two.
    :param balance_classes: Weigh rare classes more.
    :param weight_column: Column with a weight per row.
    :param seed: Seed of everything random.
    :param model_name: Model the version joins; made of dataset and target if left out.
    :param max_seconds: Longest time it may run.
    :param name: Name of the experiment.
    :param dry_run: Check everything and say what would happen; start nothing.
    :param watch: Show how it goes, until it ends. Ctrl-C leaves it running.
    """
    with connected(common) as client:
        wanted: dict[str, Any] = {
            "dataset": dataset,
            "algorithm": algorithm,
            "target": target,
            "features": feature,
            "task": task,
            "hyperparameters": settings("--set", set_),
            "test_size": test_size,
            "split": _split(split),
            "split_like": split_like,
            "cross_validation": cross_validation,
            "metric": metric,
            "positive_class": positive_class,
            "balance_classes": balance_classes,
            "weight_column": weight_column,
            "seed": seed,
            "model_name": model_name,
            "max_duration": max_seconds,
            "name": name,
            "labels": labels_of(label),
        }
        of_project = chosen_project(client, project)
        if dry_run:
            _print_plan(client.trainings.validate(of_project, **wanted), as_json=common.json)
            return 0
        training = client.trainings.start(of_project, **wanted)
        if not watch:
            sentence = f"Started {training.experiment.name}. Watch it with: easyml experiments watch {training.id}"
            print_done(training.experiment, sentence, as_json=common.json)
            return 0
        from easyml_client.cli.experiments import watch_to_the_end

        return watch_to_the_end(client, training, as_json=common.json)


app = single("train", train)


def _split(text: str | None) -> Any:
    """What "group:customer" and the like mean."""
    from easyml_client.plans.trainings import Split

    if text is None:
        return None
    kind, _, column = text.partition(":")
    if kind != "column":
        return Split(kind, column=column)
    column, equals, values = column.partition("=")
    if not (column and equals and values):
        raise UsageError("A split by column is written column:COLUMN=VALUE,VALUE; the values are of the test rows.")
    return Split(kind, column=column, test_values=values.split(","))


def _tested_on(spec: Any) -> str:
    """The split in a few words."""
    split = spec.proto.split
    kind = split.WhichOneof("kind")
    column = getattr(getattr(split, kind), "column", "")
    if kind == "column":
        return f"rows whose {column} is {', '.join(split.column.test_values)}"
    return f"{split.test_size:.0%} of the rows, {kind}" + (f" by {column}" if column else "")


def _print_plan(plan: Any, *, as_json: bool) -> None:
    spec = plan.spec
    lines = {
        "Task": spec.task,
        "Target": spec.target,
        "Features": spec.features,
        "Algorithm": spec.algorithm,
        "Settings": spec.hyperparameters,
        "Tested on": _tested_on(spec),
        "Metric": spec.objective and spec.objective.metric,
        "Model": spec.model_name,
        "Rows": plan.rows,
        "Memory, about": plan.estimated_memory_bytes and size(plan.estimated_memory_bytes),
        "Time, about": plan.estimated_duration,
    }
    print_one(plan, lines, as_json=as_json)
