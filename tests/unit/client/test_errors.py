# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

from typing import Any

import grpc
import pytest

from easyml.v1 import project_service_pb2 as pb
from easyml.v1.project_service_pb2_grpc import ProjectServiceServicer
from easyml_client import errors
from tests.unit.client.support import an_id, client_of, refuse


class Refusing(ProjectServiceServicer):
    def __init__(self, code: grpc.StatusCode, *given: Any, **details: Any) -> None:
        self.code, self.given, self.details = code, given, details

    def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
        refuse(context, self.code, *self.given, **self.details)


def error_of(code: grpc.StatusCode, *given: Any, **details: Any) -> errors.EasyMLError:
    with client_of(Refusing(code, *given, **details)) as client, pytest.raises(errors.EasyMLError) as caught:
        client.projects.get(an_id("project"))
    return caught.value


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, errors.AlreadyExists),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidInput),
        (grpc.StatusCode.UNAUTHENTICATED, errors.NotSignedIn),
        (grpc.StatusCode.PERMISSION_DENIED, errors.NotAllowed),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.WrongState),
        (grpc.StatusCode.ABORTED, errors.Stale),
        (grpc.StatusCode.INTERNAL, errors.InternalError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
    ],
)
def test_a_status_becomes_the_error_of_that_meaning(code: grpc.StatusCode, kind: type[errors.EasyMLError]) -> None:
    error = error_of(code, "SOME_REASON", "A sentence.")
    assert type(error) is kind
    assert (error.reason, str(error)) == ("SOME_REASON", "A sentence.")


def test_an_error_carries_what_the_server_said() -> None:
    error = error_of(
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        "The name is empty.",
        metadata={"limit": "255"},
        fields={"name": "must not be empty"},
        call_id="call-7",
    )
    assert (error.metadata, error.fields, error.call_id) == (
        {"limit": "255"},
        {"name": "must not be empty"},
        "call-7",
    )


def test_a_server_that_is_not_there_is_named() -> None:
    from easyml_client import EasyML

    with EasyML("127.0.0.1:1", "a-token") as client, pytest.raises(errors.Unavailable) as caught:
        client.projects.get(an_id("project"))
    assert "127.0.0.1:1 cannot be reached (the connection was refused)" in str(caught.value)


def test_a_method_the_server_does_not_know_asks_for_the_versions() -> None:
    with client_of() as client, pytest.raises(errors.EasyMLError, match="does not know GetProject") as caught:
        client.projects.get(an_id("project"))
    assert caught.value.reason == "UNKNOWN_METHOD"


def test_details_of_another_domain_are_not_taken_for_ours() -> None:
    class Plain(ProjectServiceServicer):
        def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
            context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff not a status"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "not here")

    with client_of(Plain()) as client, pytest.raises(errors.NotFound, match="GetProject failed: not here"):
        client.projects.get(an_id("project"))
