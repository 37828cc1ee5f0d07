"""What clients were told, held against what is stored: nothing acknowledged is lost, and nothing happened twice.

Each check yields sentences, one for each promise that was broken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.soak.journal import BROKEN, REFUSED, UNKNOWN, Call
from tests.soak.stored import Row, Stored

PASSING = {
    "PART_UNAVAILABLE",
    "SERVER_DRAINING",
    "UNREACHABLE",
    "DEADLINE_EXCEEDED",
    "OVERLOADED",
    "LIMIT_REACHED",
}
"""Reasons for which any call may be refused while servers and their parts come and go."""
OWN = {"update": {"STALE_ETAG"}, "delete": {"IN_USE"}}
"""Reasons that a kind of call has besides."""
Promise = Callable[[Sequence[Call], Stored], Iterable[str]]


def check_refusals(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """Every refusal is one that may be; what is not found was to be deleted."""
    deleting = [call for call in calls if call.kind == "delete"]
    for call in calls:
        named = [call.asked[name] for name in ("dataset", "version") if name in call.asked]
        gone = any(each.begin <= call.end and _object(each) in named for each in deleting)
        if call.outcome == BROKEN or (
            call.outcome in (REFUSED, UNKNOWN)
            and call.reason
            and call.reason not in PASSING | OWN.get(call.kind, set())
            and not (call.reason == "NOT_FOUND" and gone)
        ):
            yield f"{call.kind} {dict(call.asked)} of {call.client} was answered {call.reason}: {call.message}"


def check_uploads(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """An acknowledged dataset is there with its bytes, and an upload became one dataset."""
    rows = {row["id"]: row for row in stored.of("datasets")}
    versions = {row["dataset_id"]: row for row in stored.of("dataset_versions")}
    deleting = _asked_to_delete(calls)
    asked = {call.asked["upload"]: call.asked for call in calls if call.kind == "upload"}
    for call in _answered(calls, "upload"):
        told = call.told["dataset"]
        if told in deleting:
            continue
        if told not in rows or told not in versions:
            yield f"dataset {told} of upload {call.asked['upload']} was acknowledged and is lost"
            continue
        version = versions[told]
        kept = stored.files.get(version["id"], {})
        if {version["sha256"], kept.get("original")} != {call.asked["sha256"]}:
            yield f"dataset {told} has other bytes than were acknowledged: {version['sha256']}, file {kept}"
    for upload_id, number in Counter(row["labels"].get("upload") for row in rows.values()).items():
        if number > 1:
            yield f"upload {upload_id} became {number} datasets"
        if upload_id not in asked:
            yield f"a dataset is of upload {upload_id}, which nobody sent"
    yield from _different(_answered(calls, "upload"), "upload", "dataset")


def check_deletions(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """What was deleted stays deleted, and its files."""
    there = {row["id"] for table in ("datasets", "model_versions") for row in stored.of(table)}
    for call in _answered(calls, "delete"):
        if _object(call) in there | set(stored.files):
            yield f"{_object(call)} was deleted and is there"


def check_updates(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """Each acknowledged update is the only one of its etag, and the newest is what is stored, or led to it."""
    updates = [call for call in calls if call.kind == "update"]
    followed: dict[str, str] = {}
    written = {call.told["etag"]: call.asked["description"] for call in updates if call.answered}
    for call in updates:
        if call.answered and followed.setdefault(call.asked["etag"], call.id) != call.id:
            yield f"two updates of dataset {call.asked['dataset']} were acknowledged for etag {call.asked['etag']}"
    maybe = {call.asked["description"] for call in updates if not call.answered}
    for row in stored.of("datasets"):
        if row["etag"] in followed:
            yield f"dataset {row['id']} is as it was before an acknowledged update ({followed[row['etag']]})"
        if row["description"] and row["description"] not in maybe | {written.get(row["etag"])}:
            yield f"dataset {row['id']} has etag {row['etag']} and a description that came with another"


def check_starts(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """An acknowledged training is there, and a request became one training."""
    rows = {row["id"]: row for row in stored.of("ml_experiments")}
    asked = {call.asked["request"] for call in calls if call.kind == "start"}
    remembered = {row["request_id"]: row["resource_id"] for row in stored.of("requests")}
    for call in _answered(calls, "start"):
        told, request = call.told["experiment"], call.asked["request"]
        if told not in rows:
            yield f"training {told} of request {request} was acknowledged and is lost"
        elif rows[told]["labels"].get("request") != request or remembered.get(request) != told:
            yield f"training {told} is of another request than {request}, or that is not remembered"
    for request, number in Counter(row["labels"].get("request") for row in rows.values()).items():
        if number > 1:
            yield f"request {request} started {number} trainings"
        if request not in asked:
            yield f"a training is of request {request}, which nobody sent"
    yield from _different(_answered(calls, "start"), "request", "experiment")


def check_ends(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """An end that somebody was told is the end that is stored; no training failed by a defect."""
    rows = {row["id"]: row for row in stored.of("ml_experiments")}
    versions = {row["id"] for row in stored.of("model_versions")}
    deleting = _asked_to_delete(calls)
    for call in calls:
        state = call.told.get("state", "").removeprefix("TRAINING_STATE_").lower()
        if state not in ("succeeded", "failed", "cancelled"):
            continue
        row, version = rows.get(call.asked["experiment"], Row()), call.told.get("version", "")
        if row.get("state") != state:
            yield f"training {call.asked['experiment']} was told as {state} and is {row.get('state')}"
        if version and version not in versions | deleting:
            yield f"model version {version} was told of and is lost"
    for row in rows.values():
        if (row["failure"] or {}).get("reason") == "internal":
            yield f"training {row['id']} failed by a defect: {row['failure']}"


def check_watches(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """Each watcher is told every event once from where they were, all are told the same, and all of it is stored."""
    stored_kinds = {
        (row["experiment_id"], row["sequence"]): row["body"]["type"] for row in stored.of("training_events")
    }
    last = {row["id"]: row["last_sequence"] for row in stored.of("ml_experiments")}
    told: dict[tuple[str, int], str] = {}
    for call in calls:
        if call.kind != "watch":
            continue
        experiment, after = call.asked["experiment"], call.asked["after"]
        events = call.told.get("events", [])
        sequences = [sequence for sequence, _, _ in events]
        if sequences != list(range(after + 1, after + 1 + len(events))):
            yield f"a watch of {experiment} after {after} was told {sequences}"
        ended = sequences[-1] if sequences else after
        if call.answered and ended != last.get(experiment):
            yield f"a watch of {experiment} ended at {ended}, its last event is {last.get(experiment)}"
        for sequence, kind, digest in events:
            if stored_kinds.get((experiment, sequence)) != kind:
                yield f"event {sequence} of {experiment} was told as {kind} and is not stored as that"
            if told.setdefault((experiment, sequence), digest) != digest:
                yield f"event {sequence} of {experiment} was not the same for all who watched"


def check_aliases(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """What an alias was set to, in this order, is in its history, with nothing that nobody asked for.

    It is where it was set to last, or where a call that was not answered has set it.
    """
    models = {row["id"]: row["model_id"] for row in stored.of("model_versions")}
    history: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in sorted(stored.of("alias_history"), key=lambda row: row["start_time"]):
        history[row["model_id"], row["alias"]].append(row["model_version_id"])
    acknowledged: dict[tuple[str, str], list[str]] = defaultdict(list)
    current = {
        (r["model_id"], r["alias"]): r["model_version_id"] for r in stored.of("alias_history") if not r["end_time"]
    }
    asked: dict[str, set[str]] = defaultdict(set)
    maybe: dict[str, set[str]] = defaultdict(set)
    for call in calls:
        if call.kind == "alias":
            asked[call.asked["alias"]].add(call.asked["version"])
            if not call.answered:
                maybe[call.asked["alias"]].add(call.asked["version"])
            model = models.get(call.asked["version"], "")
            line = acknowledged[model, call.asked["alias"]]
            # Pointing it to where it points already leaves no entry.
            if call.answered and line[-1:] != [call.asked["version"]]:
                line.append(call.asked["version"])
    for (model, alias), line in acknowledged.items():
        if not _in_order(line, history[model, alias]):
            yield f"alias {alias} of model {model} was set to {line}, its history is {history[model, alias]}"
        if line and current.get((model, alias)) not in {line[-1], *maybe[alias]}:
            yield f"alias {alias} of model {model} was set to {line[-1]} last and is at {current.get((model, alias))}"
    for (model, alias), line in history.items():
        if set(line) - asked[alias]:
            yield f"alias {alias} of model {model} was at {set(line) - asked[alias]}, which nobody asked for"


def check_lists(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """A list has no entry twice, and everything that was acknowledged before it was asked for."""
    deleting = _asked_to_delete(calls)
    made = [
        (call.end, call.asked["project"], call.told[what], f"{what}s")
        for what, kind in (("dataset", "upload"), ("experiment", "start"))
        for call in _answered(calls, kind)
    ]
    for call in _answered(calls, "list"):
        ids, what, project = call.told["ids"], call.asked["what"], call.asked["project"]
        if len(ids) != len(set(ids)):
            yield f"a list of {what} has entries twice: {[each for each, n in Counter(ids).items() if n > 1]}"
        before = {identity for end, of, identity, kind in made if (of, kind) == (project, what) and end < call.begin}
        if missing := before - set(ids) - deleting:
            yield f"a list of {what} ({call.id}) lacks {sorted(missing)}, acknowledged before"


def check_predictions(calls: Sequence[Call], stored: Stored) -> Iterator[str]:
    """A version answers a row always alike."""
    said: dict[tuple[str, int], Any] = {}
    for call in _answered(calls, "predict"):
        values = call.told["values"]
        if len(values) != 1 or said.setdefault((call.asked["version"], call.asked["row"]), values) != values:
            yield f"version {call.asked['version']} answered row {call.asked['row']} with {values}, or otherwise before"


PROMISES: Mapping[str, Promise] = {
    "refusals are expected ones": check_refusals,
    "uploads": check_uploads,
    "deletions": check_deletions,
    "updates with etags": check_updates,
    "starts": check_starts,
    "ends": check_ends,
    "watches": check_watches,
    "aliases": check_aliases,
    "lists": check_lists,
    "predictions": check_predictions,
}


def _answered(calls: Sequence[Call], kind: str) -> list[Call]:
    return [call for call in calls if call.kind == kind and call.answered]


def _object(call: Call) -> str:
    return str(call.asked.get("dataset") or call.asked.get("version"))


def _asked_to_delete(calls: Sequence[Call]) -> set[str]:
    return {_object(call) for call in calls if call.kind == "delete"}


def _different(calls: Sequence[Call], asked: str, told: str) -> Iterator[str]:
    """What was answered to one request with two different things."""
    first: dict[str, str] = {}
    for call in calls:
        if first.setdefault(call.asked[asked], call.told[told]) != call.told[told]:
            yield f"{asked} {call.asked[asked]} was answered with {call.told[told]} and {first[call.asked[asked]]}"


def _in_order(line: Sequence[str], history: Sequence[str]) -> bool:
    """Whether a line is in a history, whatever else stands between."""
    entries = iter(history)
    return all(any(entry == each for entry in entries) for each in line)
