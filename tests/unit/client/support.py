"""A real gRPC server for the client's tests, with the behaviours a test needs."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn
from uuid import UUID, uuid5

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from easyml.v1 import (
    auth_service_pb2_grpc,
    dataset_service_pb2_grpc,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
    project_service_pb2_grpc,
    training_service_pb2_grpc,
    user_pb2,
)
from easyml_client import EasyML
from easyml_client.values import to_timestamp

_ADD: dict[type, Callable[[Any, Any], None]] = {
    getattr(module, f"{name}Servicer"): getattr(module, f"add_{name}Servicer_to_server")
    for module, name in (
        (auth_service_pb2_grpc, "AuthService"),
        (dataset_service_pb2_grpc, "DatasetService"),
        (model_service_pb2_grpc, "ModelService"),
        (prediction_service_pb2_grpc, "PredictionService"),
        (project_service_pb2_grpc, "ProjectService"),
        (training_service_pb2_grpc, "TrainingService"),
    )
}


def an_id(name: str) -> str:
    """The same UUID for the same name."""
    return str(uuid5(UUID(int=0), name))


@contextlib.contextmanager
def serving(*servicers: Any) -> Iterator[str]:
    """A server with these servicers; its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    for servicer in servicers:
        for kind, add in _ADD.items():
            if isinstance(servicer, kind):
                add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def client_of(*servicers: Any, token: str | None = "a-token") -> Iterator[EasyML]:
    """A client of a server with these servicers."""
    with serving(*servicers) as target, EasyML(target, token) as client:
        yield client


def refuse(
    context: Any,
    code: grpc.StatusCode,
    reason: str,
    message: str = "No.",
    *,
    metadata: dict[str, str] | None = None,
    fields: dict[str, str] | None = None,
    retry_after: float | None = None,
    call_id: str = "",
) -> NoReturn:
    """Ends a call as the server of the contract does."""
    details: list[Any] = [error_details_pb2.ErrorInfo(domain="easyml", reason=reason, metadata=metadata or {})]
    if fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        violations = [violation(field=name, description=text) for name, text in fields.items()]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(dt.timedelta(seconds=retry_after))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(int(retry_after * 1000))),))
    if call_id:
        details.append(error_details_pb2.RequestInfo(request_id=call_id))
    packed = [any_pb2.Any() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message, details=packed)
    context.abort_with_status(_with_trailers(rpc_status.to_status(status), retry_after))
    raise AssertionError("abort raises")


def _with_trailers(status: Any, retry_after: float | None) -> Any:
    """abort_with_status replaces the trailers that were set before."""
    pushback = () if retry_after is None else (("grpc-retry-pushback-ms", str(int(retry_after * 1000))),)
    return status._replace(trailing_metadata=(*status.trailing_metadata, *pushback))


def token_of(context: Any) -> str:
    """The bearer token a call came with."""
    return dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")


def a_session(number: int, *, expires_in: float = 600) -> user_pb2.Session:
    """The tokens "access-1" and "refresh-1" for number 1."""
    now = dt.datetime.now(dt.UTC)
    return user_pb2.Session(
        access_token=f"access-{number}",
        access_expire_time=to_timestamp(now + dt.timedelta(seconds=expires_in)),
        refresh_token=f"refresh-{number}",
        session_expire_time=to_timestamp(now + dt.timedelta(days=1)),
    )
