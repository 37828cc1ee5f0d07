"""What the descriptors say of each method: its permission, its messages, and how it is admitted.

The Open Inference Protocol is as its authors wrote it and has no options; its permissions stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from easyml.v1 import permission_pb2
from easyml_server.domain.users import Permission
from easyml_server.ports.model_servers import StreamCall, UnaryCall


class CallClass(Enum):
    """How a call is admitted: each class has a limit of its own."""

    UNARY = auto()
    STREAM = auto()
    UPLOAD = auto()
    PREDICTION = auto()


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the contract. `raw` ones are handed to their servicer as bytes."""

    path: str
    permission: Permission
    request: Any
    call_class: CallClass
    raw: bool
    has_request_id: bool


PREDICTIONS = frozenset({UnaryCall.PREDICT, UnaryCall.MODEL_INFER})
PASSED_ON = frozenset({*UnaryCall, *StreamCall})
INFERENCE = {
    "/inference.GRPCInferenceService/ServerLive": Permission.PUBLIC,
    "/inference.GRPCInferenceService/ServerReady": Permission.PUBLIC,
    "/inference.GRPCInferenceService/ServerMetadata": Permission.PUBLIC,
    "/inference.GRPCInferenceService/RepositoryIndex": Permission.VIEWER,
    UnaryCall.MODEL_READY: Permission.VIEWER,
    UnaryCall.MODEL_METADATA: Permission.VIEWER,
    UnaryCall.MODEL_INFER: Permission.VIEWER,
    StreamCall.MODEL_STREAM_INFER: Permission.VIEWER,
}


class MissingPermissionError(Exception):
    """A method of the contract says nothing about permission; the server does not start."""


def methods_of(files: Iterable[FileDescriptor]) -> Mapping[str, Method]:
    """All methods of the files' services, by path."""
    found = (
        _method(method) for file in files for service in file.services_by_name.values() for method in service.methods
    )
    return {method.path: method for method in found}


def _method(descriptor: MethodDescriptor) -> Method:
    path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
    permission = INFERENCE.get(path, descriptor.GetOptions().Extensions[permission_pb2.permission])
    if permission == permission_pb2.PERMISSION_UNSPECIFIED:
        raise MissingPermissionError(f"{path} has no permission; set (easyml.v1.permission).")
    return Method(
        path=path,
        permission=Permission(permission),
        request=GetMessageClass(descriptor.input_type),
        call_class=_call_class(path, descriptor),
        raw=path in PASSED_ON,
        has_request_id="request_id" in descriptor.input_type.fields_by_name,
    )


def _call_class(path: str, descriptor: MethodDescriptor) -> CallClass:
    if path in PREDICTIONS:
        return CallClass.PREDICTION
    if descriptor.client_streaming and path not in PASSED_ON:
        return CallClass.UPLOAD
    return CallClass.STREAM if descriptor.server_streaming else CallClass.UNARY
