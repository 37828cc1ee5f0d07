"""All checks of a soak: what was told against what is stored, and what is stored in itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.soak.journal import Call
from tests.soak.promises import PROMISES
from tests.soak.stored import Stored
from tests.soak.wholeness import WHOLENESS


def check(calls: Sequence[Call], stored: Stored) -> Mapping[str, list[str]]:
    """What each check found; nothing where all is as it must be."""
    told = {name: list(promise(calls, stored)) for name, promise in PROMISES.items()}
    return {**told, **{name: list(whole(stored)) for name, whole in WHOLENESS.items()}}
