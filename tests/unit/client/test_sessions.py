# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from easyml.v1 import auth_service_pb2 as auth_pb
from easyml.v1 import project_pb2, training_event_pb2, training_service_pb2, user_pb2
from easyml.v1 import project_service_pb2 as pb
from easyml.v1.auth_service_pb2_grpc import AuthServiceServicer
from easyml.v1.project_service_pb2_grpc import ProjectServiceServicer
from easyml.v1.training_service_pb2_grpc import TrainingServiceServicer
from easyml_client import AsyncEasyML, EasyML, errors
from easyml_client.profile import Profile, ProfileFile, SavedSession
from easyml_client.resources.users import Session
from tests.unit.client.support import a_session, an_id, refuse, serving, token_of


class Sessions(AuthServiceServicer, ProjectServiceServicer, TrainingServiceServicer):
    """Accepts the newest access token; each refresh token once, or again with the same request_id."""

    def __init__(self, accepted: int = 2) -> None:
        self.number = accepted - 1
        self.accepted = f"access-{accepted}"
        self.refreshes: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.lose_answers = 0
        self._lock = threading.Lock()

    def Login(self, request: auth_pb.LoginRequest, context: Any) -> auth_pb.LoginResponse:
        self.tokens.append(token_of(context))
        return auth_pb.LoginResponse(user=user_pb2.User(email=request.email), session=a_session(self.number))

    def RefreshToken(self, request: auth_pb.RefreshTokenRequest, context: Any) -> auth_pb.RefreshTokenResponse:
        with self._lock:
            self.tokens.append(token_of(context))
            known = (request.refresh_token, request.request_id) in self.refreshes
            if not known and request.refresh_token != f"refresh-{self.number}":
                refuse(context, grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REUSED")
            if not known:
                self.refreshes.append((request.refresh_token, request.request_id))
                self.number += 1
                self.accepted = f"access-{self.number}"
            if self.lose_answers:
                self.lose_answers -= 1
                refuse(context, grpc.StatusCode.UNAVAILABLE, "PART_UNAVAILABLE", retry_after=0.001)
            return auth_pb.RefreshTokenResponse(session=a_session(self.number))

    def GetProject(self, request: pb.GetProjectRequest, context: Any) -> pb.GetProjectResponse:
        self._check(context)
        return pb.GetProjectResponse(project=project_pb2.Project(id=request.project_id))

    def WatchTraining(self, request: Any, context: Any) -> Any:
        self._check(context)
        finished = training_event_pb2.TrainingFinished(state=4)
        event = training_event_pb2.TrainingEvent(sequence=1, finished=finished)
        yield training_service_pb2.WatchTrainingResponse(event=event)

    def _check(self, context: Any) -> None:
        if token_of(context) != self.accepted:
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", "The token has expired.")


def a_client(servicer: Sessions, target: str, *, expires_in: float = 600) -> EasyML:
    """A client with the profile of session 1."""
    session = Session.of(a_session(1, expires_in=expires_in))
    ProfileFile.default(os.environ).save(Profile(target, session=SavedSession.of(session)))
    return EasyML(target)


def saved() -> SavedSession:
    profile = ProfileFile.default(os.environ).load()
    assert profile
    assert profile.session
    return profile.session


def test_a_token_that_is_not_accepted_any_more_is_renewed_once_and_kept() -> None:
    servicer = Sessions()
    with serving(servicer) as target, a_client(servicer, target) as client:
        assert client.projects.get(an_id("project")).id == an_id("project")
    assert len(servicer.refreshes) == 1
    assert saved().refresh_token == "refresh-2"


def test_a_token_that_is_known_to_be_over_is_renewed_before_the_call() -> None:
    servicer = Sessions()
    with serving(servicer) as target, a_client(servicer, target, expires_in=-1) as client:
        client.projects.get(an_id("project"))
    assert len(servicer.refreshes) == 1


def test_a_stream_is_opened_again_with_the_new_token() -> None:
    servicer = Sessions()
    with serving(servicer) as target, a_client(servicer, target) as client:
        assert len(list(client.trainings.watch(an_id("experiment")))) == 1
    assert len(servicer.refreshes) == 1


def test_an_answer_that_was_lost_is_asked_for_with_the_same_request_id() -> None:
    servicer = Sessions()
    servicer.lose_answers = 5  # more than gRPC repeats by itself
    with serving(servicer) as target, a_client(servicer, target) as client:
        client.projects.get(an_id("project"))
    assert len(servicer.refreshes) == 1
    assert saved().refresh_token == "refresh-2"


def test_a_session_that_was_ended_is_said_and_not_tried_again() -> None:
    servicer = Sessions()
    servicer.number = 7  # refresh-1 was used long ago
    refused = pytest.raises(errors.NotSignedIn)
    with serving(servicer) as target, a_client(servicer, target) as client, refused as caught:
        client.projects.get(an_id("project"))
    assert caught.value.reason == "TOKEN_REUSED"


def test_a_token_renewed_by_another_process_is_used() -> None:
    servicer = Sessions()
    with serving(servicer) as target, a_client(servicer, target) as client:
        other = SavedSession.of(Session.of(a_session(2)))
        ProfileFile.default(os.environ).save(Profile(target, session=other))
        client.projects.get(an_id("project"))
    assert servicer.refreshes == []


def test_threads_that_find_the_token_over_renew_it_once() -> None:
    servicer = Sessions()
    with serving(servicer) as target, a_client(servicer, target) as client:
        threads = [threading.Thread(target=client.projects.get, args=(an_id("project"),)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(servicer.refreshes) == 1


def test_signing_in_sends_no_old_token_and_uses_the_new_one() -> None:
    servicer = Sessions(accepted=1)
    servicer.number = 1
    with serving(servicer) as target, EasyML(target, "old") as client:
        client.auth.login("ada@example.org", "correct horse battery")
        client.projects.get(an_id("project"))
    assert servicer.tokens == [""]


async def test_the_asyncio_client_renews_too() -> None:
    servicer = Sessions()
    with serving(servicer) as target:
        a_client(servicer, target).close()
        async with AsyncEasyML(target) as client:
            await client.projects.get(an_id("project"))
    assert len(servicer.refreshes) == 1


def test_a_fixed_token_that_is_refused_stays_refused() -> None:
    servicer = Sessions()
    with serving(servicer) as target, EasyML(target, "eml_key") as client, pytest.raises(errors.NotSignedIn):
        client.projects.get(an_id("project"))
    assert servicer.refreshes == []


def test_a_renewal_after_logout_brings_no_profile_back(tmp_path: Path) -> None:
    servicer = Sessions()
    with serving(servicer) as target, a_client(servicer, target) as client:
        ProfileFile.default(os.environ).delete()
        client.projects.get(an_id("project"))
    assert ProfileFile.default(os.environ).load() is None
