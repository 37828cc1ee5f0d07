"""The main job, end to end: a table becomes a prediction that another program calls.

Needs a running server: `make quickstart` starts one and runs this; with a server of yours, `python
examples/01_quickstart.py`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from easyml_client import AlreadyExists, EasyML
from easyml_client.discovery import data_folder
from easyml_client.resources.datasets import Dataset, Preview
from easyml_client.resources.deployments import Deployment
from easyml_client.resources.events import FoldCompleted, IterationCompleted, StageStarted
from easyml_client.resources.experiments import Comparison, Experiment
from easyml_client.resources.models import ModelVersion
from easyml_client.resources.projects import Project

PENGUINS = Path(__file__).with_name("data") / "penguins.csv"
ALGORITHMS = ("logistic_regression", "random_forest", "lightgbm")
SEED = 7

console = Console(highlight=False)


def main() -> None:
    started = time.monotonic()
    with EasyML() as client:
        project = get_project(client, "quickstart")
        dataset = get_dataset(client, project)
        show_preview(client.datasets.preview(dataset, rows=5))
        experiments = [train(client, project, dataset, algorithm) for algorithm in ALGORITHMS]
        best = compare(client, experiments)
        version = client.models.get(best.model_version_id or "")
        client.models.set_alias(version, "champion")
        exported = export(client, version)
        predict(client, version)
        deployment = deploy(client, project, version)
        say(f"\nAt its endpoint, where Triton's clients can call it too:\n\n{endpoint(client, deployment)}")
        say(f"\nThe same call from a shell, while the server runs:\n\n{grpcurl(client, deployment, version)}\n")
    say(f"Done in {time.monotonic() - started:.0f} s. The exported model lies in {exported}.")


def get_project(client: EasyML, name: str) -> Project:
    """The project of that name, made if it is not there."""
    try:
        return client.projects.create(name, description="Which species is this penguin?")
    except AlreadyExists:
        return client.projects.get(name)


def get_dataset(client: EasyML, project: Project) -> Dataset:
    """The penguins, uploaded once; the years of the study are no help to predict, so they are left out."""
    try:
        dataset = client.datasets.upload(project, PENGUINS)
    except AlreadyExists:
        return client.datasets.get("penguins", project=project)
    say(f"Uploaded {PENGUINS.name}: {dataset.current_version.schema.row_count} rows.")
    return client.datasets.update(dataset, roles={"species": "target", "year": "ignored"})


def show_preview(preview: Preview) -> None:
    table = Table(title="The first rows")
    columns = preview.columns
    for name in columns:
        table.add_column(name)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)


def train(client: EasyML, project: Project, dataset: Dataset, algorithm: str) -> Experiment:
    """Start a training and follow its events; the bar counts what the library reports, and nothing else."""
    training = client.trainings.start(
        project, dataset=dataset, algorithm=algorithm, cross_validation=5, seed=SEED, metric="f1_macro"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(algorithm, total=None, count="")

        def show(done: int, of: int, what: str) -> None:
            progress.update(bar, completed=done, total=of, count=f"{what} {done} of {of}")

        for event in training.watch():
            match event:
                case StageStarted(stage=stage):
                    progress.update(bar, description=f"{algorithm}: {stage.replace('_', ' ')}", count="")
                case FoldCompleted(fold=fold, folds=folds):
                    show(fold, folds, "fold")
                case IterationCompleted(iteration=iteration, iterations=iterations, fold=0) if iterations:
                    show(iteration, iterations, "iteration")
        progress.update(bar, description=f"{algorithm}: done", completed=1, total=1, count="")
    return training.result()


def compare(client: EasyML, experiments: list[Experiment]) -> Experiment:
    """Print the experiments side by side and return the best."""
    comparison: Comparison = client.experiments.compare(experiments, metric="f1_macro")
    table = Table(title=f"{comparison.metric} on the test rows")
    for heading in ("rank", "algorithm", comparison.metric, "accuracy", "seconds"):
        table.add_column(heading)
    for row in comparison.experiments:
        accuracy = next(m.value for m in row.experiment.metrics if m.metric == "accuracy" and m.partition == "test")
        table.add_row(
            str(row.rank),
            row.experiment.spec.algorithm,
            f"{row.value:.4f}",
            f"{accuracy:.4f}",
            f"{row.duration.total_seconds():.1f}",
        )
    console.print(table)
    return comparison.experiments[0].experiment


def export(client: EasyML, version: ModelVersion) -> Path:
    """Save the best version: as ONNX where its graph was proved equal, else as skops."""
    form = "onnx" if any(artifact.format == "onnx" for artifact in version.artifacts) else "skops"
    folder = Path("exports")
    folder.mkdir(exist_ok=True)
    path = client.models.export(version, folder / f"penguins-{version.version}.{form}", format=form)
    say(f"\nBest: {version.model_name} version {version.version} ({version.algorithm}), exported as {form}.")
    return path


def predict(client: EasyML, version: ModelVersion) -> None:
    """Predict one row at a time, as a stream, and as a table."""
    rows = examples(version)
    single = client.predictions.predict(version, rows[:1])
    say(f"One row:     {single.values[0]}  ({best_share(single.probabilities)})")
    streamed = [answer.values[0] for answer in client.predictions.stream(version, ([row] for row in rows))]
    say(f"As a stream: {', '.join(streamed)}")
    table = client.predictions.predict(version, rows)
    say(f"As a table:  {', '.join(table.values)}  ({len(table.notes)} missing values were filled in)")


def deploy(client: EasyML, project: Project, version: ModelVersion) -> Deployment:
    """Make the version callable under a name, and ask it by that."""
    try:
        rollout = client.deployments.create(project, "penguins", version)
    except AlreadyExists:
        rollout = client.deployments.update("penguins", version, project=project)
    deployment = rollout.result(timeout=60)
    answer = client.predictions.predict(deployment, examples(version)[:1])
    say(f"Deployed:    {answer.values[0]}, says revision {deployment.active_revision} of {deployment.name!r}")
    return deployment


def examples(version: ModelVersion) -> list[dict[str, object]]:
    """Rows that came with the model."""
    return [dict(row) for row in version.input_example]


def best_share(probabilities: dict[str, list[float]]) -> str:
    label = max(probabilities, key=lambda each: probabilities[each][0])
    return f"{label} with a probability of {probabilities[label][0]:.3f}"


def grpcurl(client: EasyML, deployment: Deployment, version: ModelVersion) -> str:
    """The first prediction as a grpcurl command."""
    request = {"deploymentId": deployment.id, "rows": {"rows": examples(version)[:1]}}
    key = "$EASYML_TOKEN" if "EASYML_TOKEN" in os.environ else f"$(cat {data_folder(os.environ) / 'owner.key'})"
    # Of several servers the first will do.
    address = client.connection.target.removeprefix("ipv4:").partition(",")[0]
    return (
        f'grpcurl -plaintext -H "authorization: Bearer {key}" \\\n'
        f"  -d '{json.dumps(request)}' \\\n"
        f"  {address} easyml.v1.PredictionService/Predict"
    )


def endpoint(client: EasyML, deployment: Deployment) -> str:
    """What the model says of itself, by the Open Inference Protocol; the token is good for a few minutes."""
    token = client.deployments.token(deployment).token
    return (
        f'grpcurl -plaintext -H "authorization: Bearer {token}" \\\n'
        f"  -d '{json.dumps({'name': deployment.name})}' \\\n"
        f"  {deployment.endpoints[0]} inference.GRPCInferenceService/ModelMetadata"
    )


def say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
