"""The API server of a cluster: objects are applied, deleted, listed and watched by their kind, as plain JSON.

`kubernetes.aio` finds the cluster, signs in and keeps the connections. Its models are left aside: they refuse what a
newer API server says, and drop what they do not know.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from easyml_server.deployers.kubernetes.names import MANAGER

Object = dict[str, Any]
Client = Any
"""kubernetes.aio.client.ApiClient, and what it answers: most of it has no types."""
Response = Any

ASKED_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 240
"""After so long the API server ends a watch, and it is begun again where it ended."""
SILENCE_SECONDS: Final = 90.0
"""An API server sends a bookmark every minute: one that is silent for longer is gone."""
APPLY: Final = "application/apply-patch+yaml"
PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
BAD_REQUEST, UNAUTHORIZED, NOT_FOUND, CONFLICT, GONE = 400, 401, 404, 409, 410


@dataclass(frozen=True, slots=True)
class Kind:
    """What objects are called in the API."""

    version: str
    name: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        """Of all objects of the kind in a namespace, or of one."""
        root = "/api/v1" if self.version == "v1" else f"/apis/{self.version}"
        return f"{root}/namespaces/{quote(namespace)}/{self.plural}" + (f"/{quote(name)}" if name else "")


CONFIG_MAPS: Final = Kind("v1", "ConfigMap", "configmaps")
SERVICES: Final = Kind("v1", "Service", "services")
DEPLOYMENTS: Final = Kind("apps/v1", "Deployment", "deployments")
POLICIES: Final = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
BUDGETS: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
PODS: Final = Kind("v1", "Pod", "pods")
EVENTS: Final = Kind("v1", "Event", "events")
APPLIED: Final = (CONFIG_MAPS, POLICIES, SERVICES, DEPLOYMENTS, BUDGETS)
"""The kinds that a revision has."""


class Away(Exception):
    """The API server does not answer just now."""


class Refused(Exception):
    """The API server said no; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class KubernetesApi:
    """One namespace of a cluster. Everything raises Away and Refused."""

    def __init__(self, connect: Callable[[], Awaitable[Client]], namespace: str) -> None:
        """`connect` is done when something is asked first, and again when a token has expired."""
        self.namespace = namespace
        self._connect = connect
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def aclose(self) -> None:
        """End the connections."""
        if self._client is not None:
            await self._client.close()

    async def apply(self, kind: Kind, wanted: Object, *, dry_run: bool = False) -> Object:
        """Have an object be as we want it, whatever others say of these fields; as the cluster has it now."""
        query = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        path = kind.path(self.namespace, wanted["metadata"]["name"])
        return await self._json("PATCH", path, query | ({"dryRun": "All"} if dry_run else {}), wanted, APPLY)

    async def delete(self, kind: Kind, found: Object) -> None:
        """Delete an object, unless it was deleted or made anew meanwhile; what it owns goes before it."""
        metadata = found["metadata"]
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": metadata["uid"]}}
        try:
            await self._json("DELETE", kind.path(self.namespace, metadata["name"]), {}, options)
        except Refused as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    async def list(self, kind: Kind, query: Mapping[str, str]) -> tuple[list[Object], str]:
        """All objects of a kind that a query selects, and from which version on to watch them."""
        answer = await self._json("GET", kind.path(self.namespace), query)
        return answer.get("items") or [], answer["metadata"]["resourceVersion"]

    async def watch(self, kind: Kind, query: Mapping[str, str], version: str) -> AsyncIterator[tuple[str, Object]]:
        """What happens to them from a version on, until the API server ends it; Refused (410) if that was forgotten."""
        more = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with self._asked("GET", kind.path(self.namespace), {**query, **more}) as response:
            async for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Refused(event["object"].get("code", 0), event["object"].get("message", ""))
                yield event["type"], event["object"]

    async def log(self, pod: str, query: Mapping[str, str]) -> bytes:
        """What a pod wrote; nothing of a pod that is gone, or has not begun."""
        try:
            async with self._asked("GET", f"{PODS.path(self.namespace, pod)}/log", query) as response:
                content: bytes = await response.read()
                return content
        except Refused as error:
            if error.status in (BAD_REQUEST, NOT_FOUND):
                return b""
            raise

    async def _json(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None = None, type: str = ""
    ) -> Object:
        async with self._asked(method, path, query, body, type) as response:
            answer: Object = json.loads(await response.read())
        return answer

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None = None, type: str = ""
    ) -> AsyncIterator[Response]:
        from aiohttp import ClientError

        try:
            response = await self._send(method, path, query, body, type)
            try:
                if response.status >= BAD_REQUEST:
                    raise _meaning(response.status, await response.read())
                yield response
            finally:
                response.response.close()
        except (OSError, ClientError) as error:  # also TimeoutError
            raise Away(f"The API server of the cluster does not answer ({type_of(error)}).") from error

    async def _send(self, method: str, path: str, query: Mapping[str, str], body: Object | None, type: str) -> Response:
        client = await self._connected()
        response = await _send(client, method, path, query, body, type)
        if response.status == UNAUTHORIZED:
            # The token has expired: whoever has a new one is asked for it.
            response.response.close()
            client = await self._connected(instead_of=client)
            response = await _send(client, method, path, query, body, type)
        return response

    async def _connected(self, instead_of: Client | None = None) -> Client:
        async with self._connecting:
            if self._client is None or self._client is instead_of:
                before, self._client = self._client, await self._connect()
                if before is not None:
                    await before.close()
        return self._client


async def _send(
    client: Client, method: str, path: str, query: Mapping[str, str], body: Object | None, type: str
) -> Response:
    headers = {"Accept": "application/json"} | ({"Content-Type": type} if type else {})
    request = await client.param_serialize(
        method,
        path,
        query_params=list(query.items()),
        header_params=headers,
        body=body,
        auth_settings=["BearerToken"],
    )
    seconds = WATCH_SECONDS + ASKED_SECONDS if "watch" in query else ASKED_SECONDS
    response: Response = await client.call_api(*request, _request_timeout=seconds)
    return response


def type_of(error: BaseException) -> str:
    """What went wrong, in a word."""
    return type(error).__name__


async def _lines(response: Response) -> AsyncIterator[bytes]:
    begun = bytearray()
    content = response.response.content
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            part = await content.readany()
        if not part:
            return
        begun += part
        *lines, rest = begun.split(b"\n")
        begun = bytearray(rest)
        for line in lines:
            yield bytes(line)


def _meaning(status: int, body: bytes) -> Exception:
    try:
        said = json.loads(body)
        message, reason = str(said.get("message", "")), str(said.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = body.decode(errors="replace")[:300], ""
    # An object that does not fit the schema is answered so as well; asking again does not help.
    if status in PASSING and "not declared in schema" not in message:
        return Away(f"The API server of the cluster answers {status} {reason}: {message}")
    return Refused(status, message)
