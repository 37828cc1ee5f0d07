"""How a stored model comes into memory, in two steps: what it will take, then the model itself; and how memory goes.

Both steps block, so a thread takes them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from easyml_server.serving.budget import bytes_in_memory
from easyml_server.serving.models import LoadedModel, load_model
from easyml_server.serving.predictors import read_manifest
from easyml_server.serving.sources import Source, folder_of
from easyml_server.serving.tables import TableLimits


class Stored(Protocol):
    """A model whose files are here; `bytes` is what it will take in memory."""

    @property
    def bytes(self) -> int:
        """Known before it is loaded."""
        ...

    def load(self) -> LoadedModel:
        """The model, warm. Raises CannotLoad."""
        ...


class StoredModel:
    """A model in a folder."""

    def __init__(self, version: str, folder: Path, limits: TableLimits) -> None:
        self._version = version
        self._folder = folder
        self._limits = limits

    @property
    def bytes(self) -> int:
        """See Stored."""
        served = read_manifest(self._folder).served
        return 0 if served is None else bytes_in_memory(served)

    def load(self) -> LoadedModel:
        """See Stored."""
        model = load_model(self._version, self._folder, self._limits)
        # What reading it took besides: as much again.
        give_back()
        return model


@contextmanager
def stored_model(version: str, source: Source, limits: TableLimits) -> Iterator[Stored]:
    """A model, fetched if need be, in this block. Raises CannotLoad."""
    with folder_of(source) as folder:
        yield StoredModel(version, folder, limits)


def give_back() -> None:
    """Hand what models left to the system: the C library keeps nine tenths of a forest's small pieces otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    # Not every C library has it; the others give back by themselves.
    if trim is not None:
        trim(0)
