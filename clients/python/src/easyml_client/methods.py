"""The RPCs, found by their request: each RPC of the contract has a request of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc_health.v1 import health_pb2

from easyml.v1 import (
    auth_service_pb2,
    dataset_service_pb2,
    deployment_service_pb2,
    model_service_pb2,
    permission_pb2,
    prediction_service_pb2,
    project_service_pb2,
    training_service_pb2,
)

READ_SECONDS = 10.0
WRITE_SECONDS = 30.0

_CONTRACT = (
    auth_service_pb2,
    dataset_service_pb2,
    deployment_service_pb2,
    model_service_pb2,
    prediction_service_pb2,
    project_service_pb2,
    training_service_pb2,
)
# They may have to wait for a process of the server to start: as long as a write.
_SLOW_READS = {"Predict", "PreviewDataset"}


@dataclass(frozen=True)
class Method:
    """Where an RPC is, how long it may take by default (None: as long as it likes), and whether anyone may call it."""

    path: str
    timeout: float | None
    public: bool

    @property
    def name(self) -> str:
        """The RPC's name alone, such as "GetProject"."""
        return self.path.rsplit("/", 1)[1]


def method_of(request: Any) -> Method:
    """The method that takes this request."""
    return _methods()[request.full_name]


@functools.cache
def _methods() -> Mapping[str, Method]:
    services = [service for module in _CONTRACT for service in module.DESCRIPTOR.services_by_name.values()]
    found = {method.input_type.full_name: _method(method) for service in services for method in service.methods}
    check = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]
    return {**found, check.input_type.full_name: Method(_path(check), READ_SECONDS, public=True)}


def _method(method: MethodDescriptor) -> Method:
    public = method.GetOptions().Extensions[permission_pb2.permission] == permission_pb2.PERMISSION_PUBLIC
    return Method(_path(method), _timeout(method), public)


def _path(method: Any) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _timeout(method: MethodDescriptor) -> float | None:
    if method.client_streaming or method.server_streaming:
        return None
    reads = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    return READ_SECONDS if reads and method.name not in _SLOW_READS else WRITE_SECONDS
