"""AuthService as callers see it: sessions, keys, and what they may not do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from easyml.v1 import auth_service_pb2 as pb
from easyml.v1 import permission_pb2, project_service_pb2, user_pb2
from tests.builders import PASSWORD, a_project_of, register
from tests.conftest import a_key
from tests.marks import answers, refuses
from tests.servers import Client, refusal, serving

ME = pb.GetCurrentUserRequest()


@refuses("AuthService/Login")
def test_an_unknown_account_and_a_wrong_password_answer_alike(anonymous: Client) -> None:
    known = register(anonymous).user.email
    unknown, wrong = (
        refusal(anonymous.auth.Login, pb.LoginRequest(email=email, password="not the password"))
        for email in (f"{uuid4()}@example.org", known)
    )
    assert wrong.short == ("UNAUTHENTICATED", "WRONG_CREDENTIALS")
    assert unknown.without_call_id() == wrong.without_call_id()


@refuses("AuthService/Register")
def test_an_address_that_is_taken_cannot_register(anonymous: Client) -> None:
    email = register(anonymous).user.email
    said = refusal(anonymous.auth.Register, pb.RegisterRequest(email=email.upper(), password=PASSWORD))
    assert said.short == ("ALREADY_EXISTS", "NAME_TAKEN")


@pytest.mark.parametrize(
    ("email", "password", "field"),
    [("nobody", PASSWORD, "email"), ("a@example.org", "short", "password"), ("a@example.org", "x" * 129, "password")],
)
def test_what_breaks_a_rule_of_register_is_named(anonymous: Client, email: str, password: str, field: str) -> None:
    said = refusal(anonymous.auth.Register, pb.RegisterRequest(email=email, password=password))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), [field])


@refuses("AuthService/RefreshToken")
def test_a_refresh_token_works_once_and_its_second_use_ends_the_session(anonymous: Client) -> None:
    first = register(anonymous).session
    second = anonymous.auth.RefreshToken(pb.RefreshTokenRequest(refresh_token=first.refresh_token)).session
    said = refusal(anonymous.auth.RefreshToken, pb.RefreshTokenRequest(refresh_token=first.refresh_token))
    assert said.short == ("UNAUTHENTICATED", "TOKEN_REUSED")
    with Client(anonymous.address, second.access_token) as thief:
        assert refusal(thief.auth.GetCurrentUser, ME).short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


@answers("AuthService/RefreshToken")
def test_a_repeated_refresh_gets_the_same_answer(anonymous: Client) -> None:
    request = pb.RefreshTokenRequest(request_id=str(uuid4()), refresh_token=register(anonymous).session.refresh_token)
    assert anonymous.auth.RefreshToken(request) == anonymous.auth.RefreshToken(request)
    request.refresh_token = "another"
    said = refusal(anonymous.auth.RefreshToken, request)
    assert said.short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


@answers("AuthService/LogoutEverywhere")
@refuses("AuthService/GetCurrentUser")
def test_logging_out_everywhere_ends_every_session(anonymous: Client) -> None:
    first = register(anonymous)
    second = anonymous.auth.Login(pb.LoginRequest(email=first.user.email, password=PASSWORD))
    with Client(anonymous.address, first.session.access_token) as one:
        assert one.auth.LogoutEverywhere(pb.LogoutEverywhereRequest()).ended_sessions == 2
    for session in (first.session, second.session):
        with Client(anonymous.address, session.access_token) as ended:
            assert refusal(ended.auth.GetCurrentUser, ME).short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


@answers("AuthService/RevokeApiKey")
def test_a_revoked_key_is_refused_at_once_and_can_be_revoked_again(owner: Client) -> None:
    with a_key(owner, permission_pb2.PERMISSION_VIEWER) as program:
        key_id = program.auth.GetCurrentUser(ME).api_key.id
        for _ in range(2):
            assert owner.auth.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=key_id)).api_key.HasField("revoke_time")
        assert refusal(program.auth.GetCurrentUser, ME).short == ("UNAUTHENTICATED", "INVALID_TOKEN")


@refuses("AuthService/CreateApiKey")
def test_a_key_cannot_expire_in_the_past(owner: Client) -> None:
    request = pb.CreateApiKeyRequest(name="late")
    request.expire_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=5))
    said = refusal(owner.auth.CreateApiKey, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["expire_time"])


@pytest.mark.parametrize("limited", ["permission", "project"])
def test_a_limited_key_makes_neither_wider_keys_nor_projects(owner: Client, limited: str) -> None:
    project_id = a_project_of(owner) if limited == "project" else ""
    permission = permission_pb2.PERMISSION_OWNER if limited == "project" else permission_pb2.PERMISSION_EDITOR
    with a_key(owner, permission, project_id) as program:
        wider = pb.CreateApiKeyRequest(
            name="wider", scope=user_pb2.ApiKeyScope(permission=permission_pb2.PERMISSION_OWNER)
        )
        project = project_service_pb2.CreateProjectRequest(name=f"project-{uuid4()}")
        for call, request in ((program.auth.CreateApiKey, wider), (program.projects.CreateProject, project)):
            assert refusal(call, request).short == ("PERMISSION_DENIED", "OUT_OF_SCOPE")


@pytest.mark.parametrize("limited", ["permission", "project"])
@refuses("AuthService/ListApiKeys", "AuthService/LogoutEverywhere", "AuthService/RevokeApiKey")
def test_a_limited_key_sees_and_ends_no_key_but_itself(owner: Client, limited: str) -> None:
    project_id = a_project_of(owner) if limited == "project" else ""
    permission = permission_pb2.PERMISSION_OWNER if limited == "project" else permission_pb2.PERMISSION_VIEWER
    another = owner.auth.CreateApiKey(pb.CreateApiKeyRequest(name="another")).api_key.id
    with a_key(owner, permission, project_id) as program:
        for call, request in (
            (program.auth.ListApiKeys, pb.ListApiKeysRequest()),
            (program.auth.LogoutEverywhere, pb.LogoutEverywhereRequest()),
            (program.auth.RevokeApiKey, pb.RevokeApiKeyRequest(api_key_id=another)),
        ):
            assert refusal(call, request).short == ("PERMISSION_DENIED", "OUT_OF_SCOPE")
        own = program.auth.GetCurrentUser(pb.GetCurrentUserRequest()).api_key.id
        program.auth.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=own))
        said = refusal(program.auth.GetCurrentUser, pb.GetCurrentUserRequest())
        assert said.short == ("UNAUTHENTICATED", "INVALID_TOKEN")


@pytest.mark.slow
def test_registration_is_closed_and_attempts_are_counted_where_nobody_said_otherwise(tmp_path: Path) -> None:
    with serving(tmp_path / "data", LOGINS_PER_MINUTE="2") as server, Client(server.address) as client:
        said = refusal(client.auth.Register, pb.RegisterRequest(email="a@example.org", password=PASSWORD))
        assert said.short == ("PERMISSION_DENIED", "REGISTRATION_CLOSED")
        request = pb.LoginRequest(email="a@example.org", password=PASSWORD)
        reasons = [refusal(client.auth.Login, request).reason for _ in range(2)]
        assert reasons == ["WRONG_CREDENTIALS"] * 2
        said = refusal(client.auth.Login, request)
        assert said.short == ("RESOURCE_EXHAUSTED", "TOO_MANY_ATTEMPTS")
        assert said.retry_seconds
