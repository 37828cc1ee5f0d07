"""ConfigMaps and Secrets as pods see them."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from kubernetes.aio.client import CoreV1Api
from kubernetes.aio.client.exceptions import ApiException

from tests.kubernetes.kubelet.causes import NotYet

NOT_FOUND = 404


class Configuration:
    """Of one namespace."""

    def __init__(self, core: CoreV1Api, namespace: str) -> None:
        self._core = core
        self._namespace = namespace

    async def config_map(self, name: str, *, optional: bool | None) -> Mapping[str, bytes]:
        """Its keys; none if it may be missing and is."""
        try:
            found = await self._core.read_namespaced_config_map(name, self._namespace)
        except ApiException as error:
            return _nothing(error, f'configmap "{name}" not found', optional=optional)
        texts = {key: value.encode() for key, value in (found.data or {}).items()}
        return texts | {key: _decoded(value) for key, value in (found.binary_data or {}).items()}

    async def secret(self, name: str, *, optional: bool | None) -> Mapping[str, bytes]:
        """Its keys; none if it may be missing and is."""
        try:
            found = await self._core.read_namespaced_secret(name, self._namespace)
        except ApiException as error:
            return _nothing(error, f'secret "{name}" not found', optional=optional)
        return {key: _decoded(value) for key, value in (found.data or {}).items()}


def key_of(content: Mapping[str, bytes], key: str, where: str, *, optional: bool | None) -> str | None:
    """The text of a key, None if it may be missing and is."""
    if key in content:
        return content[key].decode()
    if optional:
        return None
    raise NotYet("CreateContainerConfigError", f"couldn't find key {key} in {where}")


def _decoded(value: str | bytes) -> bytes:
    return base64.b64decode(value)


def _nothing(error: ApiException, message: str, *, optional: bool | None) -> Mapping[str, bytes]:
    if error.status != NOT_FOUND:
        raise error
    if optional:
        return {}
    raise NotYet("CreateContainerConfigError", message) from error
