"""What the blocking and the asyncio channel have in common: options, metadata, and the errors of calls."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable
from importlib import resources
from typing import Any, TypeVar

import grpc

from easyml_client import __version__
from easyml_client.credentials import Credentials
from easyml_client.discovery import Connection
from easyml_client.errors import EasyMLError, from_rpc
from easyml_client.methods import Method, method_of
from easyml_client.steps import Step

F = TypeVar("F", bound=Callable[..., Any])


def options(connection: Connection) -> list[tuple[str, Any]]:
    """Retries by the service config, pings that notice a dead peer, and a quick way back after a restart."""
    chosen: list[tuple[str, Any]] = [
        ("grpc.service_config", resources.files("easyml_client").joinpath("service_config.json").read_text("utf-8")),
        ("grpc.enable_retries", 1),
        ("grpc.primary_user_agent", f"easyml-python/{__version__}"),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3_000),
    ]
    if connection.tls and connection.tls.server_name:
        chosen.append(("grpc.ssl_target_name_override", connection.tls.server_name))
    if connection.loopback:
        # With http_proxy set, gRPC would send even loopback calls, and the owner's key with them, to the proxy.
        chosen.append(("grpc.enable_http_proxy", 0))
    return chosen


class Exchange:
    """One call: where it goes, its id and metadata, and the words for what goes wrong."""

    def __init__(self, connection: Connection, credentials: Credentials, request: Any, timeout: float | None) -> None:
        self.method: Method = method_of(request.DESCRIPTOR)
        self.timeout = self.method.timeout if timeout is None or self.method.timeout is None else timeout
        self.call_id = str(uuid.uuid4())
        self._target = connection.target
        self._token = credentials.token

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """Call id, our version, and the token where one is needed."""
        entries = [("x-request-id", self.call_id), ("easyml-version", __version__)]
        if self._token and not self.method.public:
            entries.append(("authorization", f"Bearer {self._token}"))
        return entries

    def error(self, error: grpc.RpcError) -> EasyMLError:
        """What went wrong, in our words."""
        return from_rpc(error, target=self._target, method=self.method.name, call_id=self.call_id)


def as_method(function: F, plan: Callable[..., Any]) -> F:
    """Gives a method the name, parameters and docstring of its plan, for help() and editors."""
    functools.update_wrapper(function, plan)
    del function.__wrapped__  # type: ignore[attr-defined]  # inspect would take the first parameter for self
    signature = inspect.signature(plan)
    myself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[myself, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return function


def unknown(step: Step) -> TypeError:
    """A plan yielded something that is no step."""
    return TypeError(f"{step!r} is no step that a client can do.")
