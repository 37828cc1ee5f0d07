# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import threading
import uuid
from typing import Any

import grpc
import pytest

from easyml.v1 import project_pb2
from easyml.v1 import project_service_pb2 as pb
from easyml.v1.project_service_pb2_grpc import ProjectServiceServicer
from easyml_client import AsyncEasyML, EasyML, errors
from easyml_client.methods import method_of
from tests.unit.client.support import an_id, client_of, refuse, serving


class Flaky(ProjectServiceServicer):
    """Refuses some times, then makes the project."""

    def __init__(self, failures: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, **details: Any) -> None:
        self.failures, self.code, self.details = failures, code, details
        self.requests: list[pb.CreateProjectRequest] = []
        self.metadata: list[dict[str, str]] = []

    def CreateProject(self, request: pb.CreateProjectRequest, context: Any) -> pb.CreateProjectResponse:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if len(self.requests) <= self.failures:
            refuse(context, self.code, "PART_UNAVAILABLE", **{"retry_after": 0.01, **self.details})
        return pb.CreateProjectResponse(project=project_pb2.Project(id=an_id("project"), name=request.name))


def test_a_call_that_found_the_server_away_is_repeated_with_the_same_request_id() -> None:
    servicer = Flaky(2)
    with client_of(servicer) as client:
        assert client.projects.create("iris").name == "iris"
    assert len(servicer.requests) == 3
    assert len({request.request_id for request in servicer.requests}) == 1
    assert uuid.UUID(servicer.requests[0].request_id)


def test_a_call_is_tried_four_times_at_most() -> None:
    servicer = Flaky(9)
    with client_of(servicer) as client, pytest.raises(errors.Unavailable) as caught:
        client.projects.create("iris")
    assert len(servicer.requests) == 4
    assert caught.value.retry_after == pytest.approx(0.01)


def test_a_limit_is_waited_for_when_the_server_says_so() -> None:
    servicer = Flaky(1, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with client_of(servicer) as client:
        client.projects.create("iris")
    assert len(servicer.requests) == 2


def test_what_waiting_does_not_help_is_not_repeated() -> None:
    servicer = Flaky(9, grpc.StatusCode.FAILED_PRECONDITION)
    with client_of(servicer) as client, pytest.raises(errors.WrongState):
        client.projects.create("iris")
    assert len(servicer.requests) == 1


async def test_the_asyncio_client_repeats_too() -> None:
    servicer = Flaky(2)
    with serving(servicer) as target:
        async with AsyncEasyML(target, "a-token") as client:
            assert (await client.projects.create("iris")).name == "iris"
    assert len({request.request_id for request in servicer.requests}) == 1


def test_each_call_has_an_id_the_version_and_the_token() -> None:
    servicer = Flaky(0)
    with client_of(servicer) as client:
        client.projects.create("iris")
        client.projects.create("iris")
    first, second = servicer.metadata
    assert first["authorization"] == "Bearer a-token"
    assert first["easyml-version"]
    assert uuid.UUID(first["x-request-id"]) != uuid.UUID(second["x-request-id"])


def test_a_given_request_id_is_used() -> None:
    servicer = Flaky(0)
    with client_of(servicer) as client:
        client.projects.create("iris", request_id=an_id("request"))
    assert servicer.requests[0].request_id == an_id("request")


def test_reads_have_ten_seconds_writes_thirty_and_streams_as_long_as_they_like() -> None:
    from easyml.v1 import dataset_service_pb2, prediction_service_pb2, training_service_pb2

    assert method_of(pb.GetProjectRequest.DESCRIPTOR).timeout == 10
    assert method_of(pb.CreateProjectRequest.DESCRIPTOR).timeout == 30
    assert method_of(prediction_service_pb2.PredictRequest.DESCRIPTOR).timeout == 30
    assert method_of(training_service_pb2.WatchTrainingRequest.DESCRIPTOR).timeout is None
    assert method_of(dataset_service_pb2.UploadDatasetRequest.DESCRIPTOR).timeout is None


def test_a_deadline_is_kept_and_said() -> None:
    class Slow(ProjectServiceServicer):
        def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()
            return pb.GetProjectResponse()

    too_late = pytest.raises(errors.DeadlineExceeded, match="did not answer GetProject in time")
    with serving(Slow()) as target, EasyML(target, "a-token", timeout=0.05) as client, too_late:
        client.projects.get(an_id("project"))
