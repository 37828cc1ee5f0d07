"""Clusters that a server cannot find: each is told with the setting that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from easyml_server.deployers.kubernetes.api import Away
from easyml_server.deployers.kubernetes.connection import CannotConnect, connecting, open_client

CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "one",
    "clusters": [{"name": "one", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "one", "user": {"token": "secret"}}],
    "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
}


@pytest.mark.parametrize(
    ("content", "context"),
    [
        (None, ""),
        ("", ""),
        ("{", ""),
        (json.dumps({**CONFIG, "current-context": "two"}), ""),
        (json.dumps(CONFIG), "two"),
    ],
)
async def test_a_file_or_a_context_that_names_no_cluster_is_told_by_its_setting(
    tmp_path: Path, content: str | None, context: str
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CannotConnect, match="EASYML_KUBECONFIG_FILE") as told:
        await open_client(path, context)
    assert ("EASYML_KUBERNETES_CONTEXT" in str(told.value)) is bool(context)
    assert "secret" not in str(told.value)
    with pytest.raises(Away, match="EASYML_KUBECONFIG_FILE"):
        await connecting(path, context)()


async def test_a_server_outside_of_any_cluster_needs_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CannotConnect, match=r"does not run in a pod .* EASYML_KUBECONFIG_FILE"):
        await open_client(None, "")


async def test_a_file_names_its_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(CONFIG))
    client = await open_client(path, "one")
    assert client.configuration.host == "https://127.0.0.1:1"
    await client.close()
