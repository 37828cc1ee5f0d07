"""Users, sessions and API keys."""

from __future__ import annotations

from easyml.v1 import user_pb2
from easyml_server.domain.users import ApiKey, Permission, Scope, SessionTokens, User
from easyml_server.transport.converters.enums import PERMISSION
from easyml_server.transport.converters.values import find_id, text, timestamp


def user_to_proto(user: User) -> user_pb2.User:
    """An account, without what is secret."""
    return user_pb2.User(
        id=str(user.id),
        email=user.email,
        display_name=user.display_name,
        administrator=user.administrator,
        create_time=timestamp(user.create_time),
        update_time=timestamp(user.update_time),
    )


def session_to_proto(tokens: SessionTokens) -> user_pb2.Session:
    """What signing in gives."""
    return user_pb2.Session(
        access_token=tokens.access_token,
        access_expire_time=timestamp(tokens.access_expire_time),
        refresh_token=tokens.refresh_token,
        session_expire_time=timestamp(tokens.session_expire_time),
    )


def api_key_to_proto(key: ApiKey) -> user_pb2.ApiKey:
    """A key, without its secret."""
    return user_pb2.ApiKey(
        id=str(key.id),
        name=key.name,
        scope=user_pb2.ApiKeyScope(
            project_id=text(key.scope.project_id), permission=PERMISSION.to_proto(key.scope.permission)
        ),
        prefix=key.prefix,
        create_time=timestamp(key.create_time),
        expire_time=timestamp(key.expire_time),
        revoke_time=timestamp(key.revoke_time),
    )


def to_scope(message: user_pb2.ApiKeyScope) -> Scope:
    """A scope; OWNER on all projects where nothing is said."""
    return Scope(find_id(message.project_id), PERMISSION.find(message.permission) or Permission.OWNER)
