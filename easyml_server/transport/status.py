"""Errors of the domain as google.rpc.Status: the one table from meanings to codes."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from easyml_server.domain.errors import (
    AlreadyExists,
    EasyMLError,
    InvalidInput,
    LimitReached,
    NotAllowed,
    NotFound,
    NotSignedIn,
    OutOfTime,
    Reason,
    Stale,
    Unavailable,
    WrongState,
)
from easyml_server.ports.model_servers import ModelServerError

DOMAIN = "easyml"
PUSHBACK = "grpc-retry-pushback-ms"
CALL_ID = "x-request-id"
NO_RETRY = "-1"

CODES: tuple[tuple[type[EasyMLError], int], ...] = (
    (NotFound, code_pb2.NOT_FOUND),
    (AlreadyExists, code_pb2.ALREADY_EXISTS),
    (InvalidInput, code_pb2.INVALID_ARGUMENT),
    (NotSignedIn, code_pb2.UNAUTHENTICATED),
    (NotAllowed, code_pb2.PERMISSION_DENIED),
    (WrongState, code_pb2.FAILED_PRECONDITION),
    (Stale, code_pb2.ABORTED),
    (LimitReached, code_pb2.RESOURCE_EXHAUSTED),
    (OutOfTime, code_pb2.DEADLINE_EXCEEDED),
    (Unavailable, code_pb2.UNAVAILABLE),
)
RETRIED = (code_pb2.RESOURCE_EXHAUSTED, code_pb2.UNAVAILABLE)
"""Codes that clients' service configuration retries; the pushback trailer steers when, or forbids it."""
LONGEST_PUSHBACK_SECONDS = 2.0
"""What takes longer is for the caller to wait for, who reads of it in RetryInfo; gRPC would wait without a word."""


def code_of(error: EasyMLError) -> int:
    """The status code of an error's meaning."""
    return next((code for kind, code in CODES if isinstance(error, kind)), code_pb2.INTERNAL)


def to_status(error: EasyMLError, call_id: str) -> status_pb2.Status:
    """An error with its details."""
    return status(code_of(error), error, call_id)


def status(code: int, error: EasyMLError, call_id: str) -> status_pb2.Status:
    """An error under a code of its own, for what is not in the tree."""
    return status_pb2.Status(code=code, message=error.message, details=[_packed(d) for d in _details(error, call_id)])


def _details(error: EasyMLError, call_id: str) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata),
        error_details_pb2.RequestInfo(request_id=call_id),
    ]
    if error.violations and not isinstance(error, WrongState):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description, reason=error.reason.value
                    )
                    for violation in error.violations
                ]
            )
        )
    if isinstance(error, WrongState):
        ways = [(each.field, each.description) for each in error.violations]
        ways += [(key, f"{key}: {value}") for key, value in error.metadata.items()]
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type=error.reason.value, subject=subject, description=description
                    )
                    for subject, description in ways
                ]
            )
        )
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.resource is not None:
        kind, name = error.resource
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
    return details


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


async def abort(context: grpc.aio.ServicerContext[Any, Any], rich: status_pb2.Status, error: EasyMLError) -> None:
    """End the call with a rich status, and say when to come back."""
    converted = rpc_status.to_status(rich)
    trailers: list[tuple[str, str | bytes]] = list(converted.trailing_metadata or ())
    if rich.code in RETRIED:
        trailers.append((PUSHBACK, _pushback(error.retry_after, context.time_remaining())))
    await context.abort(converted.code, converted.details or "", tuple(trailers))


def _pushback(retry_after: float | None, remaining: float | None) -> str:
    """When gRPC is to repeat the call: not where its deadline would come first, and hide what is wrong."""
    longest = LONGEST_PUSHBACK_SECONDS if remaining is None else min(remaining, LONGEST_PUSHBACK_SECONDS)
    return NO_RETRY if retry_after is None or retry_after > longest else str(int(retry_after * 1000))


async def pass_on(context: grpc.aio.ServicerContext[Any, Any], error: ModelServerError) -> None:
    """End the call with a status that was made elsewhere."""
    await context.abort(BY_NUMBER[error.code], error.message, error.trailers)


BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def internal(call_id: str) -> EasyMLError:
    """What a caller is told of a defect: nothing but how to report it."""
    return EasyMLError(f"The server made a mistake; report it with the call id {call_id}.", Reason.INTERNAL)
