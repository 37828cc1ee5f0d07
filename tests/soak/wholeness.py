"""What must be true of what is stored, whatever clients were told: all of it fits together, and nothing is left."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from tests.soak.stored import DETAILS, Row, Stored

TERMINAL = ("succeeded", "failed", "cancelled")
Whole = Callable[[Stored], Iterable[str]]


def check_trainings(stored: Stored) -> Iterator[str]:
    """Every training has ended, nobody holds it, and a success has one model."""
    models = Counter(row["experiment_id"] for row in stored.of("model_versions"))
    versions = {row["id"] for row in stored.of("model_versions")}
    for row in stored.of("ml_experiments"):
        if row["state"] not in TERMINAL:
            yield f"training {row['id']} is {row['state']}"
        if row["owner"] is not None or row["lease_until"] is not None:
            yield f"training {row['id']} has a lease of {row['owner']} until {row['lease_until']}"
        # Its version may have been deleted.
        most = int(row["state"] == "succeeded")
        least = int(most and row["model_version_id"] in versions)
        if not least <= models[row["id"]] <= most:
            yield f"training {row['id']}, {row['state']}, has {models[row['id']]} model versions"


def check_versions(stored: Stored) -> Iterator[str]:
    """Numbers of versions are given once, and none beyond the newest."""
    latest = {row["id"]: row["latest_version"] for row in stored.of("models")}
    given: dict[str, list[int]] = defaultdict(list)
    for row in stored.of("model_versions"):
        given[row["model_id"]].append(row["version"])
    for model, numbers in given.items():
        if len(numbers) != len(set(numbers)) or max(numbers) > latest.get(model, 0):
            yield f"model {model} has the versions {sorted(numbers)}, its newest is {latest.get(model)}"


def check_events(stored: Stored) -> Iterator[str]:
    """Sequences have no gap, and the end comes last and once."""
    events: dict[str, list[Row]] = defaultdict(list)
    for row in stored.of("training_events"):
        events[row["experiment_id"]].append(row)
    for row in stored.of("ml_experiments"):
        found = sorted(events[row["id"]], key=lambda event: event["sequence"])
        if [event["sequence"] for event in found] != list(range(1, row["last_sequence"] + 1)):
            sequences = [event["sequence"] for event in found]
            yield f"training {row['id']} has the events {sequences}, its last is {row['last_sequence']}"
        kinds = [event["body"]["type"] for event in found]
        ended = row["state"] in TERMINAL
        if kinds.count("finished") != ended or (ended and kinds[-1] != "finished"):
            yield f"training {row['id']} is {row['state']} and ends with {kinds[-3:]}"


def check_files(stored: Stored) -> Iterator[str]:
    """There is a folder for each version and no other, with the files that are told of."""
    expected = {row["id"]: _files_of(row) for row in stored.of("dataset_versions")}
    for row in stored.of("model_versions"):
        expected[row["id"]] = {each["filename"]: each["sha256"] for each in row["manifest"]["artifacts"]}
    for version in sorted(set(stored.files) - set(expected)):
        yield f"files of {version} lie there without a row"
    for version, names in expected.items():
        found = {name: digest for name, digest in stored.files.get(version, {}).items() if name != "manifest.json"}
        if found != names:
            yield f"version {version} has the files {found}, its row says {names}"


def check_waiting(stored: Stored) -> Iterator[str]:
    """Nothing waits to be done, and no upload is unfinished."""
    for table in ("outbox", "pending_documents"):
        for row in stored.of(table):
            yield f"{table} still has {row}"
    for row in stored.of("uploads"):
        if row["state"] not in ("completed", "failed"):
            yield f"upload {row['id']} is {row['state']}"


def check_documents(stored: Stored) -> Iterator[str]:
    """Each document has its row and says the same, and each row that needs one has it."""
    experiments = {row["id"]: row for row in stored.of("ml_experiments")}
    datasets, models = ({row["id"] for row in stored.of(table)} for table in ("dataset_versions", "model_versions"))
    versions = datasets | models
    details = dict(zip(DETAILS, (datasets, models), strict=True))
    projects = {row["id"] for row in stored.of("projects")}
    owners = {"project_configs": projects, "model_sessions": experiments, "mlflow_metadata": experiments}
    for collection, ids in (*owners.items(), ("dvc_metadata", versions), *details.items()):
        for identity in sorted(set(stored.documents.get(collection, {})) - set(ids)):
            yield f"{collection} has {identity}, which has no row"
    for identity, row in experiments.items():
        session = stored.documents.get("model_sessions", {}).get(identity)
        if session is not None and session["state"] != row["state"]:
            yield f"the session of training {identity} is {session['state']}, its row {row['state']}"
        run = stored.documents.get("mlflow_metadata", {}).get(identity, {})
        if run.get("run_id") != row["mlflow_run_id"]:
            yield f"training {identity} is recorded as {row['mlflow_run_id']!r}, its document: {run.get('run_id')!r}"
    for version in sorted(versions):
        pointer = stored.documents.get("dvc_metadata", {}).get(version)
        if pointer is None or not pointer["push_time"]:
            yield f"version {version} is not in DVC"
    for collection, ids in details.items():
        for version in sorted(ids - set(stored.documents.get(collection, {}))):
            yield f"{collection} has nothing of version {version}"


def check_runs(stored: Stored) -> Iterator[str]:
    """Each training has one run in MLflow, the one that its row names."""
    named = {row["id"]: row["mlflow_run_id"] for row in stored.of("ml_experiments") if row["state"] in TERMINAL}
    runs = defaultdict(list)
    for run, experiment in stored.runs:
        runs[experiment].append(run)
    for experiment, run in named.items():
        if runs[experiment] != [run]:
            yield f"training {experiment} is recorded as {run!r}, MLflow has {runs[experiment]}"
    for experiment in sorted(set(runs) - set(named)):
        yield f"MLflow has runs of {experiment}, which is no training that ended"


def check_leftovers(stored: Stored) -> Iterator[str]:
    """No file, folder, lock or process is left."""
    yield from (f"{path} is left" for path in stored.left)
    yield from (f"a process is left: {process}" for process in stored.processes)


WHOLENESS: Mapping[str, Whole] = {
    "trainings have ended": check_trainings,
    "numbers of versions": check_versions,
    "events": check_events,
    "files": check_files,
    "nothing waits": check_waiting,
    "documents": check_documents,
    "runs in MLflow": check_runs,
    "nothing is left": check_leftovers,
}


def _files_of(row: Row) -> dict[str, str]:
    original = {"original": row["sha256"]} if row["keeps_original"] else {}
    return {"table.parquet": row["stored_sha256"], **original}
