"""Odd values in every field of every request: each is accepted or refused with a reason, and none breaks the server.

Fields come from the descriptors, so that a new one is tried too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from easyml.v1 import training_service_pb2
from tests.builders import a_project_of, a_training, upload
from tests.conftest import a_stopped_deployment
from tests.integration.test_rpcs_refusals import METHODS, Ids, request_of
from tests.servers import Client, documented_codes, refusal_of

TEXTS = ("", "\0", "\n", "a\0b", "%_\\'\";--", 'a"b', "a.b", "$", "[0]", "ﷺ\u202e\u200b", "0", "x" * 300, str(uuid4()))
WHOLE = (-(2**63), -(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**63 - 1)
NUMBERS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 5e-324, 1.7e308)
SIGNED_64 = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64)
NOT_TRIED = {"force", "validate_only", "DeleteDeploymentRequest.etag"}
"""What would delete the things that the other values are tried on."""
ENDS_THE_KEY = {"Logout", "LogoutEverywhere"}


@pytest.fixture(scope="module")
def ids(owner: Client) -> Ids:
    """Things of the owner's that may be changed."""
    project_id, upload_id = a_project_of(owner), str(uuid4())
    dataset = upload(owner, project_id, upload_id=upload_id)
    started = owner.trainings.StartTraining(a_training(project_id, dataset.id, model_name="odd")).experiment
    watch = training_service_pb2.WatchTrainingRequest(experiment_id=started.id)
    *_, last = owner.trainings.WatchTraining(watch)
    version_id = last.event.finished.model_version_id
    deployment_id = a_stopped_deployment(owner, project_id, version_id, "odd")
    return Ids(
        project_id, dataset.id, upload_id, started.id, "odd", version_id, deployment_id, "odd",
        str(uuid4()), str(uuid4()), "nobody@example.org",
    )  # fmt: skip


def odd_values(field: FieldDescriptor) -> Iterator[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            yield from (b"", b"\xff\xff") if field.type == FieldDescriptor.TYPE_BYTES else TEXTS
        case FieldDescriptor.CPPTYPE_INT32:
            yield from (value for value in WHOLE if abs(value) < 2**31)
        case FieldDescriptor.CPPTYPE_INT64:
            yield from WHOLE
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            yield from (0, 2**32 - 1)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            yield from NUMBERS
        case FieldDescriptor.CPPTYPE_ENUM:
            yield from (0, 1, 2, 99, -1)
        case FieldDescriptor.CPPTYPE_BOOL:
            yield from (True, False)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def variants(message: Message, depth: int = 0) -> Iterator[Message]:
    """The message with one field after the other set to each odd value; three messages deep."""
    for field in message.DESCRIPTOR.fields:
        if {field.name, f"{message.DESCRIPTOR.name}.{field.name}"} & NOT_TRIED:
            continue
        if is_map(field):
            yield from with_entries(message, field)
        elif field.message_type is not None:
            yield from with_message(message, field, depth)
        else:
            for value in odd_values(field):
                changed = copied(message)
                if field.is_repeated:
                    getattr(changed, field.name).append(value)
                else:
                    setattr(changed, field.name, value)
                yield changed


def with_message(message: Message, field: FieldDescriptor, depth: int) -> Iterator[Message]:
    changed = copied(message)
    if field.is_repeated:
        getattr(changed, field.name).add()
    else:
        getattr(changed, field.name).SetInParent()
    yield changed
    if depth == 3:
        return
    inner = getattr(changed, field.name)[-1] if field.is_repeated else getattr(changed, field.name)
    for variant in variants(copied(inner), depth + 1):
        inner.CopyFrom(variant)
        yield copied(changed)


def with_entries(message: Message, field: FieldDescriptor) -> Iterator[Message]:
    key, value = field.message_type.fields
    if key.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return
    for name in TEXTS:
        changed = copied(message)
        entries = getattr(changed, field.name)
        if value.message_type is not None:
            entries[name].SetInParent()
            yield changed
            continue
        for each in odd_values(value):
            entries[name] = each
            yield copied(changed)


def copied(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(METHODS) - ENDS_THE_KEY))
def test_odd_values_are_accepted_or_refused_with_a_reason(owner: Client, ids: Ids, name: str) -> None:
    method = METHODS[name]
    sides = ("unary", "stream")
    kind = f"{sides[method.client_streaming]}_{sides[method.server_streaming]}"
    call = owner.raw(f"/{method.containing_service.full_name}/{name}", kind=kind)
    broken = []
    for request in variants(request_of(name, ids)):
        if name == "WatchDeploymentLogs":
            # Followed, it ends with the deployment.
            request.follow = False
        raw = request.SerializeToString()
        try:
            answer = call(iter([raw]) if method.client_streaming else raw)
            if name == "WatchDeployment":
                # It ends with the deployment.
                next(answer)
                answer.cancel()
            elif method.server_streaming:
                list(answer)
        except grpc.RpcError as error:
            said = refusal_of(error)
            if said.reason in ("", "INTERNAL") or said.code.name != documented_codes()[said.reason]:
                broken.append((said, request))
    assert not broken
