"""The call that is being answered: who makes it, under which id."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc

from easyml_server.domain.errors import InvalidInput, NotSignedIn, Reason
from easyml_server.domain.random_ids import random_id
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.users import Caller

Context = grpc.aio.ServicerContext[Any, Any]

_CALL_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Call:
    """One call; `caller` is None for public methods, `fingerprint` is of everything but the request id."""

    id: str
    method: str
    peer: str
    caller: Caller | None = None
    fingerprint: str = ""


CURRENT: ContextVar[Call] = ContextVar("call")


def new_call(method: str, context: Context, metadata: dict[str, str]) -> Call:
    """A call with the id its client gave it, if that is a sensible one."""
    given = metadata.get("x-request-id", "")
    call_id = given if _CALL_ID.fullmatch(given) else random_id()
    return Call(call_id, method, address(context.peer()))


def address(peer: str) -> str:
    """The address of a peer without its port: what attempts are counted by."""
    return peer.rpartition(":")[0]


def caller() -> Caller:
    """Who makes the current call; the interceptor made sure that somebody does."""
    current = CURRENT.get().caller
    if current is None:
        raise NotSignedIn("Sign in first.", Reason.NOT_SIGNED_IN)
    return current


def request_key(request: Any) -> RequestKey | None:
    """The key of a request that may be repeated; None if it brought no request id."""
    if not request.HasField("request_id"):
        return None
    call = CURRENT.get()
    return RequestKey(UUID(request.request_id), call.method, call.fingerprint)


def parse_id(value: str, field: str) -> UUID:
    """An id that the contract's rules have not checked."""
    try:
        return UUID(value)
    except ValueError as error:
        raise InvalidInput.at(field, f"{field} must be a UUID.") from error
