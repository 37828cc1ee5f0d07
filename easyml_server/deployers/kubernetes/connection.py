"""How a server finds its cluster and signs in: a kubeconfig file, or the service account of its own pod."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from easyml_server.deployers.kubernetes.api import Away, Client


class CannotConnect(Exception):
    """The cluster cannot be found; the sentence says the way out."""


def connecting(kubeconfig: Path | None, context: str) -> Callable[[], Awaitable[Client]]:
    """Opens connections, each time with what the file or the pod's token say then."""

    async def connect() -> Client:
        try:
            return await open_client(kubeconfig, context)
        except CannotConnect as error:
            raise Away(str(error)) from error

    return connect


async def open_client(kubeconfig: Path | None, context: str) -> Client:
    """Nothing is asked of the cluster yet. Raises CannotConnect."""
    client, config, yaml = await asyncio.to_thread(_imported)
    configuration = client.Configuration()
    if kubeconfig is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise CannotConnect(
                "This server does not run in a pod of a cluster; name a kubeconfig file with EASYML_KUBECONFIG_FILE."
            ) from error
        return client.ApiClient(configuration)
    try:
        await config.load_kube_config(
            str(kubeconfig), context or None, client_configuration=configuration, persist_config=False
        )
    except (OSError, yaml.YAMLError, config.ConfigException, TypeError, AttributeError, KeyError) as error:
        # The library takes what is in the file for what it should be.
        named = f" and its context {context} (EASYML_KUBERNETES_CONTEXT)" if context else ""
        raise CannotConnect(f"{kubeconfig} (EASYML_KUBECONFIG_FILE){named} name no cluster: {error}") from error
    return client.ApiClient(configuration)


def _imported() -> tuple[Any, Any, Any]:
    """About a second, in a thread; servers without a cluster go without."""
    import yaml  # type: ignore[import-untyped]
    from kubernetes.aio import client, config

    return client, config, yaml
