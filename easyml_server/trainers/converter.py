"""Reading and writing of tables in workers: what users upload is opened only there, under limits of the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from easyml_server.domain.datasets import Conversion, ConvertedTable, FileFormat, Preview, TableSchema
from easyml_server.domain.errors import EasyMLError, InvalidInput, Reason
from easyml_server.trainers import codec
from easyml_server.trainers.processes import BrokenMessage, ProcessLimits, ProcessPool, start_pool, worker_environment

CONVERT_ENTRY = "easyml_server.trainers.worker:convert"
PREVIEW_ENTRY = "easyml_server.trainers.worker:preview"
EXPORT_ENTRY = "easyml_server.trainers.worker:export"
CONVERTER_PRELOAD = ("easyml_server.trainers.worker", "easyml_server.ml.tables")
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConverterLimits:
    """What one worker may use; the settings EASYML_CONVERTER_MEMORY_BYTES, _SECONDS and _FILE_BYTES."""

    memory_bytes: int = 2 << 30
    seconds: int = 600
    file_bytes: int = 16 << 30


class ProcessTableReader:
    """The TableReader whose work is done in workers used once, at most `slots` at a time."""

    def __init__(
        self,
        pool: ProcessPool,
        slots: int,
        limits: ConverterLimits = ConverterLimits(),
        scratch: Path | None = None,
        convert_entry: str = CONVERT_ENTRY,
    ) -> None:
        self._pool = pool
        self._limits = limits
        self._scratch = scratch
        self._convert_entry = convert_entry
        # A preview does not queue behind long conversions.
        self._converters = asyncio.Semaphore(slots)
        self._previews = asyncio.Semaphore(slots)

    async def convert(self, conversion: Conversion) -> ConvertedTable:
        """See TableReader.convert. What lies at the target after an error is the caller's to remove."""
        async with self._converters:
            message = codec.encode_conversion(conversion)
            return await self._ask(self._convert_entry, message, codec.decode_converted, conversion.format)

    async def preview(
        self, table_path: str, schema: TableSchema, columns: Sequence[str], rows: int, max_bytes: int
    ) -> Preview:
        """See TableReader.preview. Raises InvalidInput (UNKNOWN_COLUMN)."""
        request = codec.PreviewRequest(table_path, schema, tuple(columns), rows, max_bytes)
        async with self._previews:
            return await self._ask(PREVIEW_ENTRY, codec.encode_preview_request(request), codec.decode_preview)

    async def export(self, table_path: str, format: FileFormat, target: str) -> None:
        """See TableReader.export. Raises InvalidInput (TOO_LARGE) where the format cannot hold the table."""
        request = codec.ExportRequest(table_path, format, target)
        async with self._converters:
            await self._ask(EXPORT_ENTRY, codec.encode_export_request(request), bytes)

    async def _ask(
        self, entry: str, message: bytes, decode: Callable[[bytes], T], format: FileFormat | None = None
    ) -> T:
        with tempfile.TemporaryDirectory(prefix="converter-", dir=self._scratch) as folder:
            answer, exit_code = await self._answer(entry, message, folder)
        if answer is None:
            raise _of_death(exit_code, format, self._limits)
        if answer.startswith(codec.FAILED):
            raise _error(entry, _decoded_failure(answer[1:]), format)
        try:
            return decode(answer.removeprefix(codec.DONE))
        except (ValueError, TypeError, LookupError) as error:
            # A worker that a file has taken over may answer anything.
            _log.exception("%s answered with what is no answer.", entry)
            raise _unreadable(format) from error

    async def _answer(self, entry: str, message: bytes, folder: str) -> tuple[bytes | None, int]:
        """The answer, if there is one, and how the worker ended if there is none."""
        limits = ProcessLimits(self._limits.memory_bytes, self._limits.seconds, self._limits.file_bytes)
        worker = await self._pool.start(entry, limits=limits, folder=folder, quiet=True)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await worker.send(message)
                answer = await worker.receive()
                return answer, 0 if answer is not None else await worker.wait()
        except TimeoutError:
            return None, -signal.SIGXCPU
        except BrokenMessage:
            return None, 1
        finally:
            await asyncio.shield(worker.close())


def _decoded_failure(message: bytes) -> EasyMLError | codec.Crashed:
    try:
        return codec.decode_failure(message)
    except ValueError as error:
        return codec.Crashed(type(error).__name__, ())


def _error(entry: str, failed: EasyMLError | codec.Crashed, format: FileFormat | None) -> EasyMLError:
    if isinstance(failed, EasyMLError):
        return failed
    _log.error("%s met %s at %s", entry, failed.error, " < ".join(reversed(failed.trace)))
    return _unreadable(format)


def _of_death(exit_code: int, format: FileFormat | None, limits: ConverterLimits) -> EasyMLError:
    if exit_code in (-signal.SIGXCPU, -signal.SIGKILL):
        return InvalidInput(
            f"The file takes longer than {limits.seconds} seconds to read (EASYML_CONVERTER_SECONDS);"
            " split it, or upload it as Parquet.",
            Reason.TOO_LARGE,
            metadata={"limit": "EASYML_CONVERTER_SECONDS", "maximum": str(limits.seconds)},
        )
    _log.warning("A converter ended with exit code %d.", exit_code)
    return _unreadable(format)


def _unreadable(format: FileFormat | None) -> InvalidInput:
    name = f" as {format.value}" if format else ""
    return InvalidInput(
        f"The file cannot be read{name}: it is damaged, or made to break its reader. Save it anew and upload that.",
        Reason.UNREADABLE_FILE,
        metadata={"format": format.value} if format else {},
    )


@contextlib.asynccontextmanager
async def start_table_reader(
    slots: int, limits: ConverterLimits = ConverterLimits(), scratch: Path | None = None, *, warm: bool = True
) -> AsyncIterator[ProcessTableReader]:
    """A reader that warms up in the background, if at once; workers have folders of their own in `scratch`.

    A server that is killed leaves them there, so it is a folder that is emptied at start; the system's if None.
    To be entered in the thread that lives as long as the server.
    """
    async with start_pool(CONVERTER_PRELOAD, worker_environment(threads=1), warm=warm) as pool:
        yield ProcessTableReader(pool, slots, limits, scratch)
