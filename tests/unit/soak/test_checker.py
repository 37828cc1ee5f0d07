"""The soak's checker finds what it is there to find: a whole story passes, and each broken one is told of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from easyml_client.errors import InternalError, NotFound, Unavailable
from tests.builders import TIME
from tests.soak.checker import check
from tests.soak.journal import ANSWERED, REFUSED, UNKNOWN, Call, Journal, LeftEarly, Tally, read_journals
from tests.soak.report import PER_MINUTE, too_little
from tests.soak.stored import Row, Stored

EVENTS = [[1, "state_changed", "aa"], [2, "state_changed", "bb"], [3, "finished", "cc"]]
SUCCEEDED = "TRAINING_STATE_SUCCEEDED"


class Story:
    """One upload, one training with its model, an alias, a list and a prediction; as told, and as stored."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.ask("upload", {"project": "P", "upload": "U", "sha256": "f"}, dataset="D", etag="e0", version="DV")
        self.ask("update", {"dataset": "D", "etag": "e0", "description": "first"}, etag="e1")
        self.ask("update", {"dataset": "D", "etag": "e1", "description": "second"}, etag="e2")
        self.ask("start", {"project": "P", "request": "R", "dataset": "D", "model": "m"}, experiment="E")
        self.ask("watch", {"experiment": "E", "after": 0}, events=EVENTS, state=SUCCEEDED, version="V")
        self.ask("alias", {"version": "V", "alias": "client-0"}, aliases=["client-0"])
        self.ask("list", {"what": "datasets", "project": "P"}, ids=["D"])
        self.ask("predict", {"version": "V", "row": 0}, values=["a"])
        dataset = {"id": "D", "labels": {"upload": "U"}, "etag": "e2", "description": "second"}
        content = {"id": "DV", "dataset_id": "D", "sha256": "f", "stored_sha256": "t", "keeps_original": True}
        training = {
            "id": "E",
            "labels": {"request": "R"},
            "state": "succeeded",
            "owner": None,
            "lease_until": None,
            "last_sequence": 3,
            "model_version_id": "V",
            "mlflow_run_id": "run",
            "failure": None,
        }
        events = [{"experiment_id": "E", "sequence": number, "body": {"type": kind}} for number, kind, _ in EVENTS]
        version = {"id": "V", "model_id": "M", "version": 1, "experiment_id": "E"}
        version["manifest"] = {"artifacts": [{"filename": "model.skops", "sha256": "s"}]}
        self.rows: dict[str, list[Row]] = {
            "datasets": [dataset],
            "dataset_versions": [content],
            "uploads": [{"id": "U", "state": "completed"}],
            "ml_experiments": [training],
            "training_events": events,
            "requests": [{"request_id": "R", "resource_id": "E"}],
            "models": [{"id": "M", "latest_version": 1}],
            "model_versions": [version],
            "alias_history": [an_entry("V", 0, None)],
            "projects": [{"id": "P"}],
        }
        self.stored = Stored(
            rows=self.rows,
            documents={
                "model_sessions": {"E": {"state": "succeeded"}},
                "mlflow_metadata": {"E": {"run_id": "run"}},
                "dvc_metadata": {"DV": {"push_time": "t"}, "V": {"push_time": "t"}},
                "dataset_metadata": {"DV": {"columns": []}},
                "model_results": {"V": {"rows": 1}},
            },
            files={
                "DV": {"table.parquet": "t", "original": "f"},
                "V": {"model.skops": "s", "manifest.json": "x"},
            },
            runs=[("run", "E")],
        )

    def ask(self, kind: str, asked: dict[str, Any], outcome: str = ANSWERED, reason: str = "", **told: Any) -> None:
        """One more call, after all others."""
        number = float(len(self.calls))
        self.calls.append(Call(f"call-{number}", "client-0", kind, asked, number, number + 0.5, outcome, told, reason))

    def found(self) -> dict[str, list[str]]:
        """What the checker finds, by check."""
        return {name: sentences for name, sentences in check(self.calls, self.stored).items() if sentences}


def an_entry(version: str, start: int, end: int | None) -> Row:
    times = [None if number is None else TIME + timedelta(seconds=number) for number in (start, end)]
    return Row(model_id="M", alias="client-0", model_version_id=version, start_time=times[0], end_time=times[1])


def test_a_whole_story_passes() -> None:
    assert Story().found() == {}


def a_lost_dataset(story: Story) -> None:
    story.rows["datasets"].clear()


def other_bytes(story: Story) -> None:
    story.stored.files["DV"]["original"] = "g"  # type: ignore[index]


def a_doubled_upload(story: Story) -> None:
    story.rows["datasets"].append({**story.rows["datasets"][0], "id": "D2"})


def an_upload_with_two_answers(story: Story) -> None:
    story.ask("upload", {"project": "P", "upload": "U", "sha256": "f"}, dataset="D2", etag="e", version="DV")


def a_dataset_that_was_deleted(story: Story) -> None:
    story.ask("delete", {"dataset": "D"})


def a_lost_update(story: Story) -> None:
    story.rows["datasets"][0].update(etag="e1", description="first")


def two_updates_of_one_etag(story: Story) -> None:
    story.ask("update", {"dataset": "D", "etag": "e1", "description": "third"}, etag="e3")


def a_lost_training(story: Story) -> None:
    story.rows["ml_experiments"].clear()


def a_doubled_training(story: Story) -> None:
    story.rows["ml_experiments"].append({**story.rows["ml_experiments"][0], "id": "E2", "last_sequence": 0})


def another_end(story: Story) -> None:
    story.rows["ml_experiments"][0]["state"] = "cancelled"


def a_defect_in_a_training(story: Story) -> None:
    story.rows["ml_experiments"][0]["failure"] = {"reason": "internal"}


def a_lost_version(story: Story) -> None:
    story.rows["model_versions"].clear()


def a_doubled_version(story: Story) -> None:
    story.rows["model_versions"].append({**story.rows["model_versions"][0], "id": "V2", "version": 2})


def a_number_given_twice(story: Story) -> None:
    story.rows["model_versions"].append({**story.rows["model_versions"][0], "id": "V2", "experiment_id": None})


def a_gap_in_events(story: Story) -> None:
    del story.rows["training_events"][1]


def a_watch_with_a_gap(story: Story) -> None:
    story.ask("watch", {"experiment": "E", "after": 0}, events=[EVENTS[0], EVENTS[2]])


def a_watch_with_a_repeat(story: Story) -> None:
    story.ask("watch", {"experiment": "E", "after": 1}, events=EVENTS)


def a_watch_that_ends_early(story: Story) -> None:
    story.ask("watch", {"experiment": "E", "after": 0}, events=EVENTS[:2])


def two_stories_told(story: Story) -> None:
    story.ask("watch", {"experiment": "E", "after": 1}, outcome=UNKNOWN, events=[[2, "state_changed", "other"]])


def an_alias_set_back(story: Story) -> None:
    story.rows["alias_history"][:] = [an_entry("V", 0, 1), an_entry("W", 1, None)]


def a_lost_alias(story: Story) -> None:
    story.rows["alias_history"].clear()


def a_list_that_lacks_something(story: Story) -> None:
    story.ask("list", {"what": "experiments", "project": "P"}, ids=[])


def a_list_with_a_repeat(story: Story) -> None:
    story.ask("list", {"what": "datasets", "project": "P"}, ids=["D", "D"])


def another_prediction(story: Story) -> None:
    story.ask("predict", {"version": "V", "row": 0}, values=["b"])


def a_defect(story: Story) -> None:
    story.ask("predict", {"version": "V", "row": 0}, outcome=REFUSED, reason="INTERNAL")


def something_not_found(story: Story) -> None:
    story.ask("update", {"dataset": "D", "etag": "e2", "description": "x"}, outcome=REFUSED, reason="NOT_FOUND")


def a_training_that_goes_on(story: Story) -> None:
    story.rows["ml_experiments"][0]["state"] = "running"


def a_left_lease(story: Story) -> None:
    story.rows["ml_experiments"][0]["owner"] = "somebody"


def an_orphan(story: Story) -> None:
    story.stored.files["X"] = {"table.parquet": "t"}  # type: ignore[index]


def a_lost_file(story: Story) -> None:
    del story.stored.files["V"]  # type: ignore[attr-defined]


def a_left_intent(story: Story) -> None:
    story.rows["outbox"] = [{"kind": "record_run"}]


def an_unfinished_upload(story: Story) -> None:
    story.rows["uploads"][0]["state"] = "converting"


def a_document_behind_its_row(story: Story) -> None:
    story.stored.documents["model_sessions"]["E"]["state"] = "running"


def a_document_without_a_row(story: Story) -> None:
    story.stored.documents["mlflow_metadata"]["X"] = {"run_id": "run"}  # type: ignore[index]


def a_version_that_is_not_in_dvc(story: Story) -> None:
    story.stored.documents["dvc_metadata"]["V"]["push_time"] = None


def a_dataset_of_which_nothing_is_known(story: Story) -> None:
    story.stored.documents["dataset_metadata"].clear()  # type: ignore[attr-defined]


def a_model_without_results(story: Story) -> None:
    story.stored.documents["model_results"]["X"] = story.stored.documents["model_results"].pop("V")  # type: ignore[attr-defined,index]


def a_doubled_run(story: Story) -> None:
    story.stored.runs = [("run", "E"), ("run2", "E")]


def a_left_file(story: Story) -> None:
    story.stored.left = ["files/work/server/x"]


def a_left_process(story: Story) -> None:
    story.stored.processes = ["python"]


BROKEN: dict[Callable[[Story], None], str] = {
    a_lost_dataset: "uploads",
    other_bytes: "uploads",
    a_doubled_upload: "uploads",
    an_upload_with_two_answers: "uploads",
    a_dataset_that_was_deleted: "deletions",
    a_lost_update: "updates with etags",
    two_updates_of_one_etag: "updates with etags",
    a_lost_training: "starts",
    a_doubled_training: "starts",
    another_end: "ends",
    a_defect_in_a_training: "ends",
    a_lost_version: "ends",
    a_doubled_version: "trainings have ended",
    a_number_given_twice: "numbers of versions",
    a_gap_in_events: "events",
    a_watch_with_a_gap: "watches",
    a_watch_with_a_repeat: "watches",
    a_watch_that_ends_early: "watches",
    two_stories_told: "watches",
    an_alias_set_back: "aliases",
    a_lost_alias: "aliases",
    a_list_that_lacks_something: "lists",
    a_list_with_a_repeat: "lists",
    another_prediction: "predictions",
    a_defect: "refusals are expected ones",
    something_not_found: "refusals are expected ones",
    a_training_that_goes_on: "trainings have ended",
    a_left_lease: "trainings have ended",
    an_orphan: "files",
    a_lost_file: "files",
    a_left_intent: "nothing waits",
    an_unfinished_upload: "nothing waits",
    a_document_behind_its_row: "documents",
    a_document_without_a_row: "documents",
    a_version_that_is_not_in_dvc: "documents",
    a_dataset_of_which_nothing_is_known: "documents",
    a_model_without_results: "documents",
    a_doubled_run: "runs in MLflow",
    a_left_file: "nothing is left",
    a_left_process: "nothing is left",
}


@pytest.mark.parametrize(("happens", "name"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_broken_is_found(happens: Callable[[Story], None], name: str) -> None:
    story = Story()
    happens(story)
    assert name in story.found()


def test_what_was_not_answered_may_have_happened_or_not() -> None:
    story = Story()
    story.ask("update", {"dataset": "D", "etag": "e2", "description": "third"}, UNKNOWN, "DEADLINE_EXCEEDED")
    story.ask("alias", {"version": "W", "alias": "client-0"}, UNKNOWN, "UNREACHABLE")
    assert story.found() == {}
    story.rows["datasets"][0].update(etag="e3", description="third")
    story.rows["alias_history"][:] = [an_entry("V", 0, 1), an_entry("W", 1, None)]
    assert story.found() == {}


def test_what_was_to_be_deleted_may_be_missing() -> None:
    story = Story()
    story.ask("delete", {"version": "V"}, UNKNOWN, "PART_UNAVAILABLE")
    story.ask("predict", {"version": "V", "row": 0}, REFUSED, "NOT_FOUND")
    assert story.found() == {}


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    tally = Tally()
    journal = Journal(tmp_path, "client-0", tally.add)
    with journal.call("start", request="R") as told:
        told.update(experiment="E")
    for error in (NotFound("gone"), Unavailable("away"), InternalError("broken"), LeftEarly(), ValueError("ours")):
        with pytest.raises(type(error)), journal.call("update", dataset="D"):
            raise error
    with (tmp_path / "client-0.jsonl").open("a") as file:
        file.write('{"id": "x", "client": "client-0", "kind": "delete", "asked": {}, "begin": 1e9}\n')
    journal.close()
    calls = read_journals(tmp_path)
    outcomes = ["answered", "refused", "unknown", "refused", "left", "broken", "unknown"]
    assert [call.outcome for call in calls] == outcomes
    assert (calls[0].asked, calls[0].told) == ({"request": "R"}, {"experiment": "E"})
    assert [call.reason for call in calls[1:4]] == ["NOT_FOUND", "PART_UNAVAILABLE", "INTERNAL"]
    assert tally.counts()["update"]["refused: INTERNAL"] == 1


def test_a_soak_in_which_nothing_happened_shows_nothing() -> None:
    few = too_little([], [], ["server killed"], minutes=5)
    assert len(few) == len(PER_MINUTE) + 1
    assert few[-1] == "this never struck: server killed"
