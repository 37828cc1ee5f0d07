"""How calls of a model server end: what they sent cannot be decoded, they are told an error, or their caller left."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2

from easyml_server.domain.errors import EasyMLError, InvalidInput, Reason
from easyml_server.domain.random_ids import random_id
from easyml_server.transport import status

LONGEST_CALL_ID: Final = 128
DEADLINE_TOLERANCE_SECONDS: Final = 0.1

Context = grpc.aio.ServicerContext[Any, Any]
MessageType = TypeVar("MessageType", bound=Message)

log = structlog.get_logger(__name__)


def decode(kind: type[MessageType], raw: bytes) -> MessageType:
    """A message from its bytes. Raises InvalidInput (MALFORMED_MESSAGE)."""
    try:
        return kind.FromString(raw)
    except (DecodeError, RecursionError, ValueError) as error:
        raise InvalidInput(
            "The message cannot be decoded; send it as the contract says.", Reason.MALFORMED_MESSAGE
        ) from error


def told(error: Exception, call_id: str) -> EasyMLError:
    """What a caller is told of an error."""
    if isinstance(error, EasyMLError):
        return error
    if isinstance(error, TimeoutError):
        return EasyMLError("The call ran out of time.", Reason.DEADLINE_EXCEEDED)
    log.error("internal_error", call_id=call_id, exc_info=error)
    return status.internal(call_id)


async def fail(context: Context, error: Exception) -> None:
    """End a call with the status of an error."""
    call_id = call_id_of(context)
    said = told(error, call_id)
    await status.abort(context, status.status(code_of(error), said, call_id), said)


def given_up(context: Context) -> grpc.StatusCode:
    """How a call ended whose caller is gone: gRPC cancels one that ran out of time just as one that was left.

    Its deadline passes a little earlier where the call came from.
    """
    remaining = context.time_remaining()
    out_of_time = remaining is not None and remaining < DEADLINE_TOLERANCE_SECONDS
    return grpc.StatusCode.DEADLINE_EXCEEDED if out_of_time else grpc.StatusCode.CANCELLED


def metadata_of(context: Context, key: str) -> str:
    """What the caller sent under a key; empty if nothing."""
    for name, value in context.invocation_metadata() or ():
        if name == key and isinstance(value, str):
            return value
    return ""


def call_id_of(context: Context) -> str:
    """The caller's name for the call, or a new one."""
    given = metadata_of(context, status.CALL_ID)
    return given if 0 < len(given) <= LONGEST_CALL_ID else random_id()


def code_of(error: Exception) -> int:
    """The status code of an error."""
    if isinstance(error, TimeoutError):
        return code_pb2.DEADLINE_EXCEEDED
    return status.code_of(error) if isinstance(error, EasyMLError) else code_pb2.INTERNAL
