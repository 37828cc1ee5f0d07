"""Which rows a model learns from and which it is tested on; folds are of the same kind as the split."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    StratifiedKFold,
    TimeSeriesSplit,
    train_test_split,
)

from easyml_server.domain.datasets import StorageType
from easyml_server.domain.experiments import FailureReason, Split, SplitKind
from easyml_server.ml.prepare import Cells, texts_of
from easyml_server.ml.refusal import Refused

Positions = NDArray[np.int64]

MIN_ROWS: Final = 10


def check_row_count(rows: int) -> None:
    """Raise Refused (TOO_FEW_ROWS) where nothing could be learned and tested."""
    if rows < MIN_ROWS:
        raise Refused(
            FailureReason.TOO_FEW_ROWS,
            f"There are {rows} rows with a target; a training needs at least {MIN_ROWS}.",
        )


@dataclass(frozen=True, slots=True)
class SplitRows:
    """Positions of the rows on each side."""

    train: Positions
    test: Positions


@dataclass(frozen=True, slots=True)
class Splitter:
    """Makes the split and its folds over rows that all have a target, at least MIN_ROWS of them.

    `codes` are the classes of the rows, None for a regression. `key` belongs to the split's column: texts for groups
    and values, numbers that sort for times.
    """

    split: Split
    row_count: int
    codes: NDArray[np.int64] | None = None
    key: NDArray[Any] | None = None

    def rows(self) -> SplitRows:
        """The split. Raises Refused when it cannot be made, or would teach nothing of a class."""
        train, test = self._sides()
        if not len(train) or not len(test):
            raise _impossible("leaves one side without rows; choose another share or column")
        self._check_classes(train, test)
        return SplitRows(train, test)

    def folds(self, train: Positions, count: int) -> Iterator[SplitRows]:
        """Folds of the training rows, each with the rows to learn from and those held out."""
        if len(train) < 2 * count:
            raise Refused(
                FailureReason.TOO_FEW_ROWS,
                f"{len(train)} training rows are too few for {count} folds; use fewer folds.",
            )
        for learned, held_out in self._folds(train, count):
            rows = SplitRows(np.sort(train[learned]), np.sort(train[held_out]))
            self._check_classes(rows.train, train, f"fold of {count}")
            yield rows

    def _sides(self) -> tuple[Positions, Positions]:
        match self.split.kind:
            case SplitKind.RANDOM:
                return self._by_chance(None)
            case SplitKind.STRATIFIED:
                return self._by_chance(self._strata(2))
            case SplitKind.GROUP:
                return self._by_group()
            case SplitKind.TIME:
                return self._by_time()
            case SplitKind.COLUMN:
                chosen = np.isin(self._key(), np.array(self.split.test_values, dtype=object))
                return np.flatnonzero(~chosen), np.flatnonzero(chosen)

    def _by_chance(self, strata: NDArray[np.int64] | None) -> tuple[Positions, Positions]:
        if strata is not None:
            classes = int(strata.max()) + 1
            smaller = min(self.split.test_size, 1 - self.split.test_size) * self.row_count
            if smaller < classes:
                raise _impossible(f"has no room for all {classes} classes on each side; split by chance, or add rows")
        train, test = train_test_split(
            np.arange(self.row_count), test_size=self.split.test_size, random_state=self.split.seed, stratify=strata
        )
        return np.sort(train), np.sort(test)

    def _by_group(self) -> tuple[Positions, Positions]:
        groups = self._key()
        self._check_groups(groups, 2)
        drawn = GroupShuffleSplit(n_splits=1, test_size=self.split.test_size, random_state=self.split.seed)
        train, test = next(drawn.split(groups, groups=groups))
        return np.sort(train), np.sort(test)

    def _by_time(self) -> tuple[Positions, Positions]:
        """The latest rows are tested; rows of one time stay on one side, whichever comes nearer to the share."""
        times = self._key()
        wanted = round(self.split.test_size * self.row_count)
        boundary = np.sort(times)[self.row_count - max(wanted, 1)]
        candidates = [times >= boundary, times > boundary]
        possible = [chosen for chosen in candidates if 0 < chosen.sum() < self.row_count]
        if not possible:
            raise _impossible(f"has one time only in column {self.split.column!r}; choose another split")
        chosen = min(possible, key=lambda mask: abs(int(mask.sum()) - wanted))
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)

    def _folds(self, train: Positions, count: int) -> Iterator[tuple[Positions, Positions]]:
        match self.split.kind:
            case SplitKind.RANDOM:
                yield from KFold(count, shuffle=True, random_state=self.split.seed).split(train)
            case SplitKind.STRATIFIED:
                strata = self._strata(2)[train]
                if np.bincount(strata).max() < count:
                    raise _impossible(f"has fewer rows in each class than {count} folds; use fewer folds")
                drawn = StratifiedKFold(count, shuffle=True, random_state=self.split.seed)
                with warnings.catch_warnings():
                    # A class with fewer rows than folds is checked below, fold by fold.
                    warnings.simplefilter("ignore", UserWarning)
                    yield from drawn.split(train, strata)
            case SplitKind.TIME:
                order = np.argsort(self._key()[train], kind="stable")
                for past, future in TimeSeriesSplit(count).split(order):
                    yield order[past], order[future]
            case _:
                groups = self._key()[train]
                self._check_groups(groups, count)
                yield from GroupKFold(count).split(train, groups=groups)

    def _strata(self, least: int) -> NDArray[np.int64]:
        if self.codes is None:
            raise _impossible("by class needs classes, which a regression has not; split by chance")
        lonely = int((np.bincount(self.codes) < least).sum())
        if lonely:
            raise _impossible(
                f"by class needs two rows of each class, and {lonely} of the classes have one only; "
                "remove or merge those classes, or split by chance"
            )
        return self.codes

    def _check_groups(self, groups: NDArray[Any], least: int) -> None:
        found = len(np.unique(groups))
        if found < least:
            raise _impossible(
                f"needs at least {least} different values in column {self.split.column!r}, and finds {found}; "
                "choose another column or fewer folds"
            )

    def _check_classes(self, train: Positions, rest: Positions, what: str = "split") -> None:
        """A class that is held out entirely could be predicted by nobody."""
        if self.codes is None:
            return
        unseen = len(set(self.codes[rest].tolist()) - set(self.codes[train].tolist()))
        if unseen:
            raise Refused(
                FailureReason.IMPOSSIBLE_SPLIT,
                f"The {what} leaves {unseen} of the {int(self.codes.max()) + 1} classes without a row to learn from; "
                "split by class, use another seed or fewer folds, or remove rare classes.",
            )
        if len(np.unique(self.codes[train])) == 1:
            raise Refused(
                FailureReason.IMPOSSIBLE_SPLIT,
                f"The {what} leaves rows of one class only to learn from; split by class, or choose another column.",
            )

    def _key(self) -> NDArray[Any]:
        if self.key is None:
            raise _impossible("needs a column; name one")
        return self.key


def split_key(cells: Cells, storage_type: StorageType, split: Split) -> NDArray[Any]:
    """The key of a split's column. Rows without a value form one group; a split by time cannot place them."""
    if split.kind is not SplitKind.TIME:
        return texts_of(cells, storage_type)
    if storage_type in (StorageType.STRING, StorageType.BOOL):
        raise _impossible(
            f"needs times or numbers in column {split.column!r}, whose values are text; upload it with a date type, or "
            "choose another column"
        )
    missing = int(cells.missing.sum())
    if missing:
        raise _impossible(
            f"finds {missing} rows without a time in column {split.column!r}; fill them in, or choose another split"
        )
    return cells.values


def split_sha256(test_rows: NDArray[np.int64]) -> str:
    """SHA-256 over the sorted row numbers of the test side, little-endian int64."""
    return hashlib.sha256(np.sort(test_rows).astype("<i8").tobytes()).hexdigest()


def _impossible(end: str) -> Refused:
    return Refused(FailureReason.IMPOSSIBLE_SPLIT, f"The split {end}.")
