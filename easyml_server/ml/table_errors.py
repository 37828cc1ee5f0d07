"""Refusals of files: sentences for people, with the place and the way out, and never with values of cells."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from easyml_server.domain.datasets import FileFormat, TableLimits
from easyml_server.domain.errors import InvalidInput, Reason

MAX_NAME_BYTES = 4096


def unreadable(format: FileFormat, message: str, line: int | None = None) -> InvalidInput:
    """A file that is no table of this format."""
    metadata = {"format": format.value} | ({"line": str(line)} if line is not None else {})
    return InvalidInput(message, Reason.UNREADABLE_FILE, metadata=metadata)


def too_large(limit: str, maximum: int, message: str) -> InvalidInput:
    """A file beyond a limit of TableLimits; `limit` is the field's name."""
    setting = f"EASYML_{limit.upper()}"
    return InvalidInput(
        f"{message} (at most {maximum:,}: {setting}).",
        Reason.TOO_LARGE,
        metadata={"limit": setting, "maximum": str(maximum)},
    )


def checked_names(names: Sequence[str], format: FileFormat, limits: TableLimits, line: int | None = None) -> list[str]:
    """The names of the columns, as they are, if a table can have them."""
    if len(names) > limits.max_columns:
        raise too_large("max_columns", limits.max_columns, f"The table has {len(names):,} columns")
    seen: dict[str, int] = {}
    for position, name in enumerate(names, 1):
        if problem := _name_problem(name):
            raise unreadable(format, f"The name of column {position} {problem}.", line)
        if name in seen:
            raise unreadable(
                format, f"Columns {seen[name]} and {position} have the same name, {name!r}; rename one.", line
            )
        seen[name] = position
    return list(names)


def _name_problem(name: str) -> str | None:
    if not name.strip():
        return "is empty; give every column a name"
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes; shorten it"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "holds control characters or broken text; rename it"
    return None
