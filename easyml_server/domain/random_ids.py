"""Ids for what is named once and is no secret: calls and predictions."""

from __future__ import annotations

from random import Random
from typing import Final

_random: Final = Random()  # noqa: S311 (not a secret)


def random_id() -> str:
    """A random UUID (version 4) without a call to the system, which takes longer than a prediction's arithmetic.

    The generator was seeded by the system.
    """
    digits = f"{_random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
