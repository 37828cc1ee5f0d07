"""AuthService on the wire."""

from __future__ import annotations

from uuid import UUID

from easyml.v1 import auth_service_pb2 as pb
from easyml.v1 import auth_service_pb2_grpc as pb_grpc
from easyml_server.services.auth import AuthService
from easyml_server.services.deployments import DeploymentService
from easyml_server.transport.calls import CURRENT, Context, caller
from easyml_server.transport.converters.deployments import to_deployment_name
from easyml_server.transport.converters.pages import next_page_token, page_request
from easyml_server.transport.converters.users import api_key_to_proto, session_to_proto, to_scope, user_to_proto
from easyml_server.transport.converters.values import timestamp, to_time
from easyml_server.transport.replay import SecretReplay


class AuthServicer(pb_grpc.AuthServiceServicer):
    """AuthService on the wire."""

    def __init__(self, auth: AuthService, deployments: DeploymentService, replay: SecretReplay) -> None:
        self._auth = auth
        self._deployments = deployments
        self._replay = replay

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:
        async def register() -> pb.RegisterResponse:
            user, tokens = await self._auth.register(
                request.email, request.password, request.display_name, CURRENT.get().peer
            )
            return pb.RegisterResponse(user=user_to_proto(user), session=session_to_proto(tokens))

        return await self._replay.once(request, register)

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        async def login() -> pb.LoginResponse:
            user, tokens = await self._auth.login(request.email, request.password, CURRENT.get().peer)
            return pb.LoginResponse(user=user_to_proto(user), session=session_to_proto(tokens))

        return await self._replay.once(request, login)

    async def RefreshToken(self, request: pb.RefreshTokenRequest, context: Context) -> pb.RefreshTokenResponse:
        async def refresh() -> pb.RefreshTokenResponse:
            tokens = await self._auth.refresh(request.refresh_token)
            return pb.RefreshTokenResponse(session=session_to_proto(tokens))

        return await self._replay.once(request, refresh)

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        await self._auth.logout(caller())
        return pb.LogoutResponse()

    async def LogoutEverywhere(
        self, request: pb.LogoutEverywhereRequest, context: Context
    ) -> pb.LogoutEverywhereResponse:
        return pb.LogoutEverywhereResponse(ended_sessions=await self._auth.logout_everywhere(caller()))

    async def GetCurrentUser(self, request: pb.GetCurrentUserRequest, context: Context) -> pb.GetCurrentUserResponse:
        user, key = await self._auth.current_user(caller())
        return pb.GetCurrentUserResponse(user=user_to_proto(user), api_key=api_key_to_proto(key) if key else None)

    async def ExchangeToken(self, request: pb.ExchangeTokenRequest, context: Context) -> pb.ExchangeTokenResponse:
        by_name = request.WhichOneof("target") == "name"
        target = to_deployment_name(request.name) if by_name else UUID(request.deployment_id)
        made = await self._deployments.exchange_token(caller(), target)
        return pb.ExchangeTokenResponse(
            token=made.token, expire_time=timestamp(made.expire_time), deployment_id=str(made.deployment_id)
        )

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        async def create() -> pb.CreateApiKeyResponse:
            expire_time = to_time(request.expire_time, "expire_time") if request.HasField("expire_time") else None
            key, secret = await self._auth.create_api_key(caller(), request.name, to_scope(request.scope), expire_time)
            return pb.CreateApiKeyResponse(api_key=api_key_to_proto(key), secret=secret)

        return await self._replay.once(request, create)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        page = await self._auth.list_api_keys(caller(), page_request(request))
        keys = [api_key_to_proto(key) for key in page.items]
        return pb.ListApiKeysResponse(api_keys=keys, next_page_token=next_page_token(request, page))

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        key = await self._auth.revoke_api_key(caller(), UUID(request.api_key_id))
        return pb.RevokeApiKeyResponse(api_key=api_key_to_proto(key))
