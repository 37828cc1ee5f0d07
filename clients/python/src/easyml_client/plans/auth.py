"""Signing in, and keys for programs."""

from __future__ import annotations

import datetime as dt
import uuid

from easyml.v1 import auth_service_pb2 as pb
from easyml.v1 import permission_pb2
from easyml_client.plans.paging import pages
from easyml_client.plans.references import ProjectRef, project_id
from easyml_client.resources.users import ApiKey, Caller, NewApiKey, Session, User
from easyml_client.steps import Plan, SignIn, Stream, call
from easyml_client.values import enum_number, to_timestamp


def register(email: str, password: str, *, display_name: str = "") -> Plan[Session]:
    """Make an account and sign this client in with it; only where the server lets people register."""
    request = pb.RegisterRequest(
        request_id=str(uuid.uuid4()), email=email, password=password, display_name=display_name
    )
    session = Session.of((yield from call(request, pb.RegisterResponse)).session)
    yield SignIn(session)
    return session


def login(email: str, password: str) -> Plan[Session]:
    """Sign this client in; its session is renewed by itself."""
    request = pb.LoginRequest(request_id=str(uuid.uuid4()), email=email, password=password)
    session = Session.of((yield from call(request, pb.LoginResponse)).session)
    yield SignIn(session)
    return session


def logout() -> Plan[None]:
    """End the session; an API key stays valid."""
    yield from call(pb.LogoutRequest(), pb.LogoutResponse)


def logout_everywhere() -> Plan[int]:
    """End all of your sessions; the answer is how many."""
    return (yield from call(pb.LogoutEverywhereRequest(), pb.LogoutEverywhereResponse)).ended_sessions


def whoami() -> Plan[Caller]:
    """Who the calls of this client are made by, and with which key."""
    return Caller.of((yield from call(pb.GetCurrentUserRequest(), pb.GetCurrentUserResponse)))


def current_user() -> Plan[User]:
    """Who the calls of this client are made by."""
    return User.of((yield from call(pb.GetCurrentUserRequest(), pb.GetCurrentUserResponse)).user)


def create_api_key(
    name: str,
    *,
    project: ProjectRef | None = None,
    permission: str | None = None,
    expires: dt.datetime | dt.timedelta | None = None,
) -> Plan[NewApiKey]:
    """Make a key for a program: for one project or all, with "viewer", "editor" or "owner" rights.

    The secret is in the answer only. `expires` is a time, or how long from now.
    """
    request = pb.CreateApiKeyRequest(request_id=str(uuid.uuid4()), name=name)
    if project is not None:
        request.scope.project_id = yield from project_id(project)
    if permission is not None or project is not None:
        request.scope.permission = enum_number("permission", permission_pb2.Permission, permission or "owner")
    if expires is not None:
        end = dt.datetime.now(dt.UTC) + expires if isinstance(expires, dt.timedelta) else expires
        request.expire_time.CopyFrom(to_timestamp(end))
    return NewApiKey.of((yield from call(request, pb.CreateApiKeyResponse)))


def list_api_keys(*, page_size: int = 0) -> Stream[ApiKey]:
    """Your keys, newest first, revoked ones included."""
    request = pb.ListApiKeysRequest(page_size=page_size)
    yield from pages(request, pb.ListApiKeysResponse, lambda page: map(ApiKey.of, page.api_keys))


def revoke_api_key(api_key_id: str) -> Plan[ApiKey]:
    """End a key at once."""
    request = pb.RevokeApiKeyRequest(api_key_id=api_key_id)
    return ApiKey.of((yield from call(request, pb.RevokeApiKeyResponse)).api_key)
