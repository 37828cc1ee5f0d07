"""`easyml predict`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from easyml_client.cli.app import single
from easyml_client.cli.common import EVERYWHERE, Common, ProjectOption, connected, pairs, project_for
from easyml_client.cli.output import UsageError, as_stored, complain, print_json, print_table
from easyml_client.cli.rows import Row, blocks, rows_of_file, typed

if TYPE_CHECKING:
    from cyclopts import Token

    from easyml_client.client import EasyML
    from easyml_client.resources.deployments import Deployment
    from easyml_client.resources.models import ModelVersion
    from easyml_client.resources.predictions import Prediction

_BLOCK = 1_000


def _row_per_option(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """What follows one --row is one row, as JSON; cyclopts counts from 0 at each."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.index == 0:
            rows.append([])
        rows[-1].append(token.value)
    return tuple(json.dumps(pairs("--row", cells)) for cells in rows)


Rows = Annotated[tuple[str, ...], Parameter(name="--row", consume_multiple=True, converter=_row_per_option)]


def predict(
    model: str | None = None,
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    row: Rows = (),
    deployment: str | None = None,
    format: str | None = None,
    ignore_extra: bool = False,
    project: ProjectOption = None,
    common: Common = EVERYWHERE,
) -> None:
    """Predict rows: given here, in a csv or json file, or on stdin.

    Example: `easyml predict churn@production --row age=39 plan=basic --row age=52 plan=gold`

    Example: `easyml predict --deployment churn rows.csv`

    :param model: NAME (the newest version), NAME:3, NAME@alias or the id of a version.
    :param file: csv or json; stdin if left out, or -.
    :param deployment: Name or id of a deployment that answers, in place of a model.
    :param row: COLUMN=VALUE …, one --row per row; an empty value is no value.
    :param format: csv or json, where the content does not say it.
    :param ignore_extra: Leave out columns that the model does not know, instead of being refused.
    """
    if deployment is not None and model is not None and file is None:
        file, model = Path(model), None
    if (deployment is None) == (model is None):
        raise UsageError("Say who answers: MODEL, or --deployment NAME.")
    if row and file:
        raise UsageError("Give rows by --row or in a file, not both.")
    if not row and file is None and sys.stdin.isatty():
        raise UsageError("There are no rows; give --row COLUMN=VALUE …, a file, or rows on stdin.")
    with connected(common) as client:
        answering, version = _answering(client, model, deployment, project)
        given = map(json.loads, row) if row else rows_of_file(file, format)
        answer = _Answer(version)
        for prediction in _predictions(client, answering, typed(given, version.signature, ignore_extra=ignore_extra)):
            answer.add(prediction)
    answer.print(as_json=common.json)


app = single("predict", predict)


def _answering(
    client: EasyML, model: str | None, deployment: str | None, project: str | None
) -> tuple[ModelVersion | Deployment, ModelVersion]:
    """Who is asked, and the version whose columns count."""
    if model is not None:
        version = client.models.get(model, project=project_for(client, model, project), view="basic")
        return version, version
    reference = deployment or ""
    found = client.deployments.get(reference, project=project_for(client, reference, project))
    number = found.active_revision or found.latest_revision
    revision = next(each for each in client.deployments.revisions(found) if each.number == number)
    return found, client.models.get(revision.model_version_id or "", view="basic")


def _predictions(client: EasyML, answering: ModelVersion | Deployment, rows: Iterator[Row]) -> Iterator[Prediction]:
    """One answer for a few rows; a stream, block by block, for many."""
    from easyml_client.errors import InvalidInput
    from easyml_client.resources.predictions import PredictionFailure

    first = next(blocks(rows, _BLOCK), [])
    if len(first) < _BLOCK:
        yield client.predictions.predict(answering, first)
        return
    everything = (block for part in ([first], blocks(rows, _BLOCK)) for block in part)
    for number, answer in enumerate(client.predictions.stream(answering, everything)):
        if isinstance(answer, PredictionFailure):
            start = number * _BLOCK
            raise InvalidInput(f"Rows {start + 1} to {start + _BLOCK}: {answer.message}", reason=answer.reason)
        yield answer


@dataclass
class _Answer:
    """The answers of all blocks as one."""

    version: ModelVersion
    values: list[Any] = field(default_factory=list)
    probabilities: dict[str, list[float]] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    omitted_notes: int = 0

    def add(self, prediction: Prediction) -> None:
        """The next block; its notes count rows from its own start."""
        start = len(self.values)
        self.values.extend(prediction.values)
        for label, shares in prediction.probabilities.items():
            self.probabilities.setdefault(label, []).extend(shares)
        self.notes.extend({**note.to_dict(), "row": note.row + start} for note in prediction.notes)
        self.omitted_notes += prediction.omitted_notes

    def print(self, *, as_json: bool) -> None:
        """All of it; rows of notes count from 0 in JSON, from 1 for people."""
        if as_json:
            print_json(
                {
                    "model_version_id": self.version.id,
                    "values": self.values,
                    "probabilities": self.probabilities,
                    "notes": self.notes,
                    "omitted_notes": self.omitted_notes,
                }
            )
            return
        output = self.version.signature.output if self.version.signature else "prediction"
        titles = [output or "prediction", *(f"P({label})" for label in self.probabilities)]
        print_table(titles, zip(self.values, *self.probabilities.values(), strict=True), said=as_stored)
        self._print_notes()
        if self.omitted_notes:
            complain(f"Note: {self.omitted_notes} more notes were left out.")

    def _print_notes(self) -> None:
        """A line per column and kind; a file of many rows has a note for many cells."""
        rows: dict[tuple[str, str], list[int]] = {}
        for note in self.notes:
            rows.setdefault((note["column"], note["kind"]), []).append(note["row"] + 1)
        for (column, kind), where in rows.items():
            what = "had no value, one was filled in" if kind == "null_filled" else "is new to the model"
            place = f"row {where[0]}" if len(where) == 1 else f"{len(where)} rows, the first is row {where[0]}"
            complain(f"Note: {column}: {what} ({place}).")
