"""Users, their sessions and API keys."""

from __future__ import annotations

import datetime as dt
from dataclasses import field

from easyml.v1 import auth_service_pb2, user_pb2
from easyml_client.resources.base import Resource


class User(Resource[user_pb2.User]):
    """A person, or the local owner of an embedded server."""

    id: str
    email: str
    display_name: str
    administrator: bool
    create_time: dt.datetime
    update_time: dt.datetime


class Session(Resource[user_pb2.Session]):
    """A short access token, and the refresh token that renews it once. Keep both secret."""

    access_token: str = field(repr=False)
    access_expire_time: dt.datetime
    refresh_token: str = field(repr=False)
    session_expire_time: dt.datetime


class ApiKeyScope(Resource[user_pb2.ApiKeyScope]):
    """What a key may do; `project_id` None means all projects of its owner."""

    project_id: str | None
    permission: str | None


class ApiKey(Resource[user_pb2.ApiKey]):
    """Lets a program call the server; `revoke_time` is None while it is valid."""

    id: str
    name: str
    scope: ApiKeyScope | None
    prefix: str
    create_time: dt.datetime
    expire_time: dt.datetime | None
    revoke_time: dt.datetime | None


class NewApiKey(Resource[auth_service_pb2.CreateApiKeyResponse]):
    """A key with its secret, which cannot be shown again."""

    api_key: ApiKey
    secret: str = field(repr=False)


class Caller(Resource[auth_service_pb2.GetCurrentUserResponse]):
    """Who a call is made by; `api_key` is None for a session."""

    user: User
    api_key: ApiKey | None
