"""What runs in workers: the functions that a ProcessPool is told to start, by their names.

This module is named by the server and so imports `ml` inside its functions: the server never loads a data frame.
"""

from __future__ import annotations

import errno
import math
import resource
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from easyml_server.domain.disk import FULL, disk_broken, disk_full
from easyml_server.domain.errors import EasyMLError, InvalidInput, Reason
from easyml_server.domain.events import IterationCompleted
from easyml_server.domain.experiments import Failure, FailureKind, FailureReason
from easyml_server.domain.faults import fault_point
from easyml_server.domain.training import Outcome, Report, TrainingFailed, TrainingJob
from easyml_server.trainers import codec
from easyml_server.trainers.channel import Channel


class TrainingCancelled(BaseException):
    """Raised out of a report to leave a fit; no library catches it by accident, as it is no Exception."""


def train(channel: Channel) -> None:
    """Run the one training that is sent, and answer with reports and the outcome."""
    job = codec.decode_job(_first(channel))
    cancelled = threading.Event()
    channel.watch(lambda _: cancelled.set())

    def report(what: Report) -> None:
        if cancelled.is_set():
            raise TrainingCancelled
        channel.send(codec.encode_training(_finite(what)))

    try:
        outcome = _outcome(job, report)
    except TrainingCancelled:
        return
    except Exception as error:
        channel.send(codec.encode_training(_crash(error)))
        return
    channel.send(_encoded_outcome(outcome))


def convert(channel: Channel) -> None:
    """Run the one conversion that is sent."""

    def work(message: bytes) -> bytes:
        from easyml_server.ml import tables

        conversion = codec.decode_conversion(message)
        fault_point("converter.write")
        converted = codec.encode_converted(tables.convert(conversion))
        fault_point("converter.written")
        return converted

    _answer(channel, work)


def preview(channel: Channel) -> None:
    """Read the head of a table."""

    def work(message: bytes) -> bytes:
        from easyml_server.ml import tables

        asked = codec.decode_preview_request(message)
        return codec.encode_preview(
            tables.preview(asked.table_path, asked.schema, asked.columns, asked.rows, asked.max_bytes)
        )

    _answer(channel, work)


def export(channel: Channel) -> None:
    """Write a table in another format."""

    def work(message: bytes) -> bytes:
        from easyml_server.ml import tables

        asked = codec.decode_export_request(message)
        tables.export(asked.table_path, asked.format, asked.target)
        return b"{}"

    _answer(channel, work)


def _outcome(job: TrainingJob, report: Callable[[Report], None]) -> Outcome:
    from easyml_server.ml import training

    try:
        return training.train(job, report)
    except MemoryError:
        return _failed(FailureReason.OUT_OF_MEMORY, "The training needed more memory than the worker could get.")
    except OSError as error:
        if error.errno not in FULL:
            raise
        return _failed(FailureReason.DISK_FULL, "The disk was full while the model was written.")


def _failed(reason: FailureReason, message: str) -> TrainingFailed:
    return TrainingFailed(Failure(FailureKind.SYSTEM, reason, message))


def _encoded_outcome(outcome: Outcome) -> bytes:
    try:
        return codec.encode_training(outcome)
    except ValueError as error:
        return codec.encode_training(_crash(error))


def _finite(report: Report) -> Report:
    """A loss that went to infinity is no reason to end a training: the iteration is told without it."""
    if not isinstance(report, IterationCompleted):
        return report
    return replace(report, values={name: value for name, value in report.values.items() if math.isfinite(value)})


def _first(channel: Channel) -> bytes:
    message = channel.receive()
    if message is None:
        raise SystemExit
    return message


def _answer(channel: Channel, work: Callable[[bytes], bytes]) -> None:
    message = _first(channel)
    channel.watch(lambda _: None)
    try:
        answer = codec.DONE + work(message)
    except Exception as error:
        answer = codec.FAILED + _failure(error)
    channel.send(answer)


def _failure(error: Exception) -> bytes:
    if isinstance(error, EasyMLError):
        return codec.encode_failure(error)
    if isinstance(error, MemoryError):
        return codec.encode_failure(_too_large("EASYML_CONVERTER_MEMORY_BYTES", "memory", resource.RLIMIT_AS))
    if isinstance(error, OSError) and error.errno in (*FULL, errno.EIO):
        return codec.encode_failure(_of_the_system(error))
    # The server writes the place to its log.
    return codec.encode_crash(_crash(error))


def _too_large(limit: str, what: str, kind: int) -> InvalidInput:
    """A file that needs more of the machine than a file may; `limit` is the setting, `kind` what the kernel keeps."""
    return InvalidInput(
        f"The file needs more {what} to read than {limit} allows; split it, or upload it as Parquet.",
        Reason.TOO_LARGE,
        metadata={"limit": limit, "maximum": str(resource.getrlimit(kind)[0])},
    )


def _of_the_system(error: OSError) -> EasyMLError:
    if error.errno == errno.EFBIG:
        return _too_large("EASYML_CONVERTER_FILE_BYTES", "space", resource.RLIMIT_FSIZE)
    return disk_broken() if error.errno == errno.EIO else disk_full()


def _crash(error: Exception) -> codec.Crashed:
    frames = traceback.extract_tb(error.__traceback__)
    trace = tuple(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return codec.Crashed(type(error).__name__, trace[-20:])
