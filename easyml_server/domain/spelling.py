"""Names that were misspelt, answered with the ones that exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN_CHARACTERS = 300
"""Errors travel in the trailers of a call, which clients read up to 8 KiB."""


def way_out(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: did you mean 'price'?, or the names that exist, where none is close."""
    names = list(known)
    if not names:
        return "there are none yet."
    close = difflib.get_close_matches(name.casefold(), [each.casefold() for each in names], n=1)
    if close:
        meant = next(each for each in names if each.casefold() == close[0])
        return f"did you mean {meant!r}?"
    return f"there are {_listed(names)}."


def _listed(names: list[str]) -> str:
    shown: list[str] = []
    room = SHOWN_CHARACTERS
    for name in names:
        room -= len(name) + 4
        if room < 0:
            break
        shown.append(repr(name))
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
