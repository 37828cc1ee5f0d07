"""What is printed: tables and words for people, plain lines for pipes, JSON for scripts.

stdout has results only; everything else goes to stderr. What comes from a server is text, never markup or control
codes.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


class UsageError(Exception):
    """The command line is wrong; the message says how to right it."""


def complain(message: str) -> None:
    """A line for people, on stderr."""
    print(clean(message, keep="\n"), file=sys.stderr)


def clean(value: object, keep: str = "") -> str:
    """Text without control codes: what others named cannot move the cursor or colour the screen."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(_visible(letter, keep) for letter in text)


def _visible(letter: str, keep: str) -> str:
    if letter in keep or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return letter
    return " " if letter in "\t\r\n" else f"\\u{ord(letter):04x}"


def interactive() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """One JSON document; numbers that JSON does not have (NaN, infinity) become null."""
    from easyml_client.resources.base import plain

    print(json.dumps(_finite(plain(value)), ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - NaN is not itself
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


Columns = Mapping[str, Callable[[Any], Any]]
"""Titles, and what stands below each for one item."""


def print_list(items: Iterable[Any], columns: Columns, *, as_json: bool, empty: str) -> None:
    """A list of things."""
    found = list(items)
    if as_json:
        print_json(found)
    elif not found and interactive():
        complain(empty)
    else:
        print_table(list(columns), [[cell(item) for cell in columns.values()] for item in found])


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[Any]], *, said: Callable[[Any], str] | None = None
) -> None:
    """A table; on a pipe one line per row, the cells separated by tabs, the titles first."""
    say = said or words
    if not interactive():
        print("\t".join(map(clean, titles)))
        for row in rows:
            print("\t".join(say(cell) for cell in row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title == "ID")  # an id is there to be copied
    for row in rows:
        table.add_row(*(Text(say(cell), justify="right" if _is_number(cell) else "left") for cell in row))
    Console().print(table)


def print_one(item: Any, lines: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing, as lines of names and values; what is empty is left out."""
    if as_json:
        print_json(item)
        return
    shown = {title: words(value) for title, value in lines.items() if value not in (None, "", (), [], {})}
    width = max(map(len, shown), default=0)
    for title, value in shown.items():
        print(f"{title:<{width}}  {value}")


def print_done(item: Any, sentence: str, *, as_json: bool) -> None:
    """What was done."""
    if as_json:
        print_json(item)
    else:
        print(clean(sentence))


def words(value: Any) -> str:  # noqa: PLR0911 - one return per type
    """A value for people."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case dt.datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case dt.timedelta():
            return duration(value.total_seconds())
        case Mapping():
            shown = {key: "none" if item is None else words(item) for key, item in value.items()}
            return ", ".join(f"{clean(key)}={shown[key]}" for key in sorted(shown))
        case list() | tuple():
            return ", ".join(words(item) for item in value)
    return clean(value)


def as_stored(value: Any) -> str:
    """A value of a table of data: what was stored, not what reads well; a program may read it from a pipe."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.10g}" if interactive() else repr(value)
        case dt.datetime():
            return value.isoformat()
    return words(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def duration(seconds: float) -> str:
    """A length of time: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:  # noqa: PLR2004 - below that a tenth matters
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def size(count: int) -> str:
    """A number of bytes: "312 B", "4.2 MiB"."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 - the step between the units
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
