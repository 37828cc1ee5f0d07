"""What AuthService answers: accounts, sessions and keys that work as the answers say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from easyml.v1 import auth_service_pb2 as pb
from easyml.v1 import permission_pb2, user_pb2
from tests.builders import PASSWORD, a_project_of, register
from tests.conftest import SIGNED_IN_MINUTES
from tests.marks import answers, refuses
from tests.servers import Client, refusal

ME = pb.GetCurrentUserRequest()


@pytest.fixture
def account(anonymous: Client) -> pb.RegisterResponse:
    """An account of its own for one test."""
    return register(anonymous)


@pytest.fixture
def signed_in(anonymous: Client, account: pb.RegisterResponse) -> Iterator[Client]:
    with Client(anonymous.address, account.session.access_token) as client:
        yield client


def lasts(time: Any) -> timedelta:
    """From now until a time of an answer."""
    return time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)  # type: ignore[no-any-return]  # a timestamp


def about(expected: timedelta, found: timedelta) -> bool:
    return expected - timedelta(minutes=1) < found <= expected


@answers("AuthService/Register")
def test_registering_makes_an_account_and_signs_it_in(anonymous: Client) -> None:
    name = f"Ada.{uuid4()}"
    made = anonymous.auth.Register(pb.RegisterRequest(email=f"{name}@Example.org", password=PASSWORD))
    assert made.user.email == f"{name}@example.org".lower()
    assert (made.user.display_name, made.user.administrator) == (name.lower(), False)
    assert about(timedelta(minutes=SIGNED_IN_MINUTES), lasts(made.session.access_expire_time))
    assert about(timedelta(days=30), lasts(made.session.session_expire_time))
    with Client(anonymous.address, made.session.access_token) as client:
        assert client.auth.GetCurrentUser(ME) == pb.GetCurrentUserResponse(user=made.user)


def test_a_password_that_everybody_knows_is_refused(anonymous: Client) -> None:
    request = pb.RegisterRequest(email=f"{uuid4()}@example.org", password="passwordpassword")
    said = refusal(anonymous.auth.Register, request)
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["password"])


@answers("AuthService/Login", "AuthService/GetCurrentUser")
def test_signing_in_opens_a_session_of_the_account(anonymous: Client, account: pb.RegisterResponse) -> None:
    session = anonymous.auth.Login(pb.LoginRequest(email=account.user.email.upper(), password=PASSWORD))
    assert session.user == account.user
    assert session.session.access_token != account.session.access_token
    with Client(anonymous.address, session.session.access_token) as client:
        me = client.auth.GetCurrentUser(ME)
    assert (me.user, me.HasField("api_key")) == (account.user, False)


def test_what_holds_a_secret_is_answered_again_to_the_same_request(anonymous: Client, signed_in: Client) -> None:
    email = f"{uuid4()}@example.org"
    for call, request, field in (
        (anonymous.auth.Register, pb.RegisterRequest(email=email, password=PASSWORD), "display_name"),
        (anonymous.auth.Login, pb.LoginRequest(email=email, password=PASSWORD), "email"),
        (signed_in.auth.CreateApiKey, pb.CreateApiKeyRequest(name="a"), "name"),
    ):
        request.request_id = str(uuid4())
        assert call(request) == call(request)
        setattr(request, field, f"another.{uuid4()}@example.org")
        assert refusal(call, request).short == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert len(signed_in.auth.ListApiKeys(pb.ListApiKeysRequest()).api_keys) == 1


def test_a_request_that_failed_can_be_made_again_under_its_id(anonymous: Client, account: pb.RegisterResponse) -> None:
    request = pb.LoginRequest(request_id=str(uuid4()), email=account.user.email, password="wrong")
    assert refusal(anonymous.auth.Login, request).reason == "WRONG_CREDENTIALS"
    request.password = PASSWORD
    assert anonymous.auth.Login(request).user == account.user


@answers("AuthService/Logout")
@refuses("AuthService/Logout")
def test_signing_out_ends_the_session_and_no_other(
    anonymous: Client, account: pb.RegisterResponse, signed_in: Client
) -> None:
    other = anonymous.auth.Login(pb.LoginRequest(email=account.user.email, password=PASSWORD)).session
    assert signed_in.auth.Logout(pb.LogoutRequest()) == pb.LogoutResponse()
    assert refusal(signed_in.auth.Logout, pb.LogoutRequest()).short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    renewal = pb.RefreshTokenRequest(refresh_token=account.session.refresh_token)
    assert refusal(anonymous.auth.RefreshToken, renewal).short == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    with Client(anonymous.address, other.access_token) as client:
        assert client.auth.GetCurrentUser(ME).user == account.user


def test_signing_out_with_a_key_changes_nothing(signed_in: Client) -> None:
    secret = signed_in.auth.CreateApiKey(pb.CreateApiKeyRequest(name="program")).secret
    with Client(signed_in.address, secret) as program:
        program.auth.Logout(pb.LogoutRequest())
        assert program.auth.GetCurrentUser(ME).api_key.name == "program"
    assert signed_in.auth.GetCurrentUser(ME).user


@answers("AuthService/CreateApiKey")
def test_a_key_does_what_its_scope_says_until_it_expires(signed_in: Client) -> None:
    project_id = a_project_of(signed_in)
    scope = user_pb2.ApiKeyScope(project_id=project_id, permission=permission_pb2.PERMISSION_EDITOR)
    request = pb.CreateApiKeyRequest(name="program", scope=scope)
    made = signed_in.auth.CreateApiKey(request)
    assert (made.api_key.name, made.api_key.scope) == ("program", scope)
    assert made.secret.startswith("eml_")
    assert made.secret.startswith(made.api_key.prefix)
    assert len(made.api_key.prefix) < len(made.secret) / 2
    assert about(timedelta(days=365), lasts(made.api_key.expire_time))
    request.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=2))
    assert signed_in.auth.CreateApiKey(request).api_key.expire_time == request.expire_time


@pytest.mark.parametrize("permission", ["SIGNED_IN", "PUBLIC", "ADMINISTRATOR"])
def test_a_key_carries_a_permission_of_projects_only(signed_in: Client, permission: str) -> None:
    scope = user_pb2.ApiKeyScope(permission=permission_pb2.Permission.Value(f"PERMISSION_{permission}"))
    said = refusal(signed_in.auth.CreateApiKey, pb.CreateApiKeyRequest(name="k", scope=scope))
    assert (said.short, said.fields) == (("INVALID_ARGUMENT", "INVALID_FIELD"), ["scope.permission"])


@answers("AuthService/ListApiKeys")
def test_keys_are_listed_newest_first_in_pages_with_the_revoked_ones(signed_in: Client) -> None:
    made = [signed_in.auth.CreateApiKey(pb.CreateApiKeyRequest(name=f"key {number}")) for number in range(3)]
    signed_in.auth.RevokeApiKey(pb.RevokeApiKeyRequest(api_key_id=made[1].api_key.id))
    first = signed_in.auth.ListApiKeys(pb.ListApiKeysRequest(page_size=2))
    rest = signed_in.auth.ListApiKeys(pb.ListApiKeysRequest(page_size=2, page_token=first.next_page_token))
    assert [key.name for key in (*first.api_keys, *rest.api_keys)] == ["key 2", "key 1", "key 0"]
    assert [key.HasField("revoke_time") for key in (*first.api_keys, *rest.api_keys)] == [False, True, False]
    assert not rest.next_page_token
    answered = first.SerializeToString() + rest.SerializeToString()
    assert not [each for each in made if each.secret.encode() in answered]
