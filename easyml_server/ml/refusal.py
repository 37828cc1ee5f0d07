"""Why a training ends without a model, and how the libraries' exceptions become such reasons.

Messages name columns, settings and counts, never values of cells: they are stored and shown to everyone in the project.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from easyml_server.domain.algorithms import Algorithm
from easyml_server.domain.experiments import Failure, FailureKind, FailureReason

_SYSTEM: Final = frozenset({FailureReason.OUT_OF_MEMORY, FailureReason.DISK_FULL, FailureReason.INTERNAL})
# EFBIG is what a limit on file sizes answers.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]")
_LONGEST: Final = 500


class Refused(Exception):
    """The training cannot go on, for a reason that its owner can act on."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def failure_of(error: BaseException, experiment_id: UUID, known_words: Collection[str]) -> Failure:
    """The stored form of what was raised; the stage is added by whoever knows it.

    `known_words` may be repeated in the message, see `words_of`.
    """
    if isinstance(error, Refused):
        return _failure(error.reason, error.message)
    if isinstance(error, MemoryError) or "bad_alloc" in str(error) or "bad allocation" in str(error):
        return _failure(
            FailureReason.OUT_OF_MEMORY,
            "The training needed more memory than there is; use fewer rows or columns, or a smaller model.",
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        return _failure(FailureReason.DISK_FULL, "The disk is full; free some space and train again.")
    if isinstance(error, LibraryRefusal):
        return _failure(FailureReason.FIT_REFUSED, refusal_sentence(error.cause, known_words))
    return _failure(
        FailureReason.INTERNAL,
        f"Something went wrong inside EasyML; report it with the id of the experiment, {experiment_id}.",
    )


class LibraryRefusal(Exception):
    """A library said no to the settings or the data while it fitted or predicted."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def library_refusals() -> Iterator[None]:
    """Around `fit` and `predict`, where such an error is the library's word; elsewhere it is a defect of ours."""
    try:
        yield
    except Exception as error:
        # The boosters' own errors, by name: neither library is loaded unless it is trained with.
        if isinstance(error, ValueError | TypeError) or type(error).__name__ in ("XGBoostError", "LightGBMError"):
            raise LibraryRefusal(error) from error
        raise


def words_of(algorithm: Algorithm | None, settings: Mapping[str, Any]) -> frozenset[str]:
    """Words that are no cells: names, choices and defaults of the settings, and the values that were sent."""
    words = {part for value in settings.values() for part in _parts(value)}
    for parameter in algorithm.hyperparameters if algorithm else ():
        words.update((parameter.name, *parameter.choices, *_parts(parameter.default)))
    return frozenset(words)


def refusal_sentence(error: Exception, known_words: Collection[str]) -> str:
    """What a library said, without the values of cells it may have quoted: unknown quoted or listed words go."""
    said = _first_sentence(str(error))
    kept = _QUOTED.sub(lambda match: match[0] if _parts(match[0]) <= set(known_words) else "…", said)
    return f"The library refused these settings on this data: {kept[:_LONGEST].rstrip('. ')}."


def _first_sentence(text: str) -> str:
    """The first line that says something; XGBoost puts a time and a place in front, and a stack below."""
    text = re.sub(r"^\[[\d:]+\]\s*\S+?:\d+:\s*", "", text.strip())
    return next((line.strip() for line in text.splitlines() if line.strip()), "it gave no reason")


def _parts(value: Any) -> set[str]:
    return {word for word in re.split(r"[\s,'\"\[\]]+", str(value)) if word}


def _failure(reason: FailureReason, message: str) -> Failure:
    return Failure(FailureKind.SYSTEM if reason in _SYSTEM else FailureKind.USER, reason, message)
