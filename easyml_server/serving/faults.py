"""What can be wrong with a table, as errors that name the place and never a value."""

from __future__ import annotations

from collections.abc import Iterable

from easyml_server.domain.datasets import StorageType
from easyml_server.domain.errors import InvalidInput, Reason, Violation
from easyml_server.domain.models import SignatureColumn
from easyml_server.domain.spelling import way_out

# Errors travel in the trailers of a call, which clients read up to 8 KiB.
NAME_CHARACTERS = 100
NAMES_CHARACTERS = 600

_WORDS = {
    StorageType.INT64: "whole numbers",
    StorageType.DOUBLE: "numbers",
    StorageType.STRING: "text",
    StorageType.BOOL: "true or false",
    StorageType.TIMESTAMP: "points in time",
}

_WAYS_OUT = {
    StorageType.TIMESTAMP: " Send timestamps, or texts such as 2026-05-04T12:00:00Z.",
}


def unknown_column(name: str, field: str, known: Iterable[str]) -> InvalidInput:
    """A column that the model has not learned from."""
    return InvalidInput.at(
        field,
        f"The model has no column {quoted(name)}; {way_out(shortened(name), known)}",
        Reason.UNKNOWN_COLUMN,
        {"column": shortened(name)},
    )


def missing_columns(names: Iterable[str], field: str) -> InvalidInput:
    """Columns that nobody sent."""
    missing = list(names)
    return InvalidInput.at(
        field,
        f"The model needs {listed(missing)} too; where a value is not known, send the column without one (null, or an "
        "empty cell).",
        Reason.MISSING_COLUMN,
        {"column": shortened(missing[0])},
    )


def wrong_type(column: SignatureColumn, field: str, what: str, row: int | None = None) -> InvalidInput:
    """Values of another type; `what` says what came instead, in general words."""
    where = "" if row is None else f" in row {row}"
    metadata = {"column": shortened(column.name), "expected": column.storage_type.value}
    if row is not None:
        metadata["row"] = str(row)
    holds, way_out = _WORDS[column.storage_type], _WAYS_OUT.get(column.storage_type, "")
    return InvalidInput.at(
        field,
        f"Column {quoted(column.name)} holds {holds}, and{where} there is {what}.{way_out}",
        Reason.WRONG_COLUMN_TYPE,
        metadata,
    )


def too_large(what: str, limit: str, maximum: int) -> InvalidInput:
    """More than a limit allows; `limit` is the name of the setting."""
    return InvalidInput(
        f"The request has {what}; at most {maximum} are taken ({limit}). Send several requests, or a stream.",
        Reason.TOO_LARGE,
        metadata={"limit": limit, "maximum": str(maximum)},
    )


def malformed(sentence: str, field: str | None = None) -> InvalidInput:
    """Bytes that are not what the contract says."""
    violations = [Violation(field, sentence)] if field else []
    return InvalidInput(sentence, Reason.MALFORMED_MESSAGE, violations=violations)


def shortened(name: str) -> str:
    """A name as far as an error has room for it."""
    return name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"


def quoted(name: str) -> str:
    """A name in quotes, with what cannot be printed escaped."""
    return repr(shortened(name))


def listed(names: Iterable[str]) -> str:
    """Names in quotes, as many as there is room for."""
    shown: list[str] = []
    room = NAMES_CHARACTERS
    rest = 0
    for name in names:
        word = quoted(name)
        room -= len(word) + 2
        if room < 0:
            rest += 1
        else:
            shown.append(word)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
