"""What lies ready for a cluster names settings, commands and users that exist, and is hardened.

Its objects are applied to an API server, and run, in tests/examples/test_kubernetes_guide.py.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from easyml_server.cli import app
from easyml_server.settings import Settings
from tests.servers import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    (found["kind"], found["metadata"]["name"]): found
    for name in KUSTOMIZATION["resources"]
    for found in yaml.safe_load_all((FOLDER / name).read_text())
}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTINGS = {f"EASYML_{name.upper()}" for name in Settings.model_fields}
RUNNING = [("Deployment", "easyml-server"), ("Job", "easyml-migrations")]


def variables(name: str) -> dict[str, str]:
    lines = (FOLDER / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def pod(kind: tuple[str, str]) -> dict[str, Any]:
    return dict(OBJECTS[kind]["spec"]["template"]["spec"])


def test_the_base_has_every_file_and_no_secret() -> None:
    others = {"kustomization.yaml", "secrets.example.env", *KUSTOMIZATION["configMapGenerator"][0]["envs"]}
    assert {path.name for path in FOLDER.iterdir()} == others | set(KUSTOMIZATION["resources"])
    assert not any(kind == "Secret" for kind, _ in OBJECTS)
    assert "change-me" in (FOLDER / "secrets.example.env").read_text()


def test_the_settings_exist_and_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    given = variables("settings.env") | variables("secrets.example.env")
    assert {name for name in given if name.startswith("EASYML_")} <= SETTINGS
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.data_dir.as_posix() == "/data"
    assert (
        pod(RUNNING[0])["terminationGracePeriodSeconds"] > settings.drain_delay_seconds + settings.drain_grace_seconds
    )


@pytest.mark.parametrize("kind", RUNNING)
def test_a_pod_runs_a_command_of_the_image_as_its_user(kind: tuple[str, str]) -> None:
    (container,) = pod(kind)["containers"]
    assert container["image"] == "easyml"
    assert set(container["args"]) <= {name for name in app if not name.startswith("-")}
    uid = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, flags=re.M)
    assert uid is not None
    context = pod(kind)["securityContext"]
    assert [context["runAsUser"], context["runAsGroup"]] == [int(uid[1]), int(uid[2])]


@pytest.mark.parametrize("kind", RUNNING)
def test_a_pod_writes_to_its_volumes_only(kind: tuple[str, str]) -> None:
    (container,) = pod(kind)["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/data", "/tmp"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod(kind)["volumes"]}
    # Else a Service called easyml sets EASYML_PORT.
    assert pod(kind)["enableServiceLinks"] is False


def test_who_is_named_is_there() -> None:
    """Settings, service accounts and labels that objects look for."""
    sources = {
        source["name"]
        for kind in RUNNING
        for container in pod(kind)["containers"]
        for each in container["envFrom"]
        for source in each.values()
    }
    assert sources == {KUSTOMIZATION["configMapGenerator"][0]["name"], "easyml-secrets"}
    account = pod(RUNNING[0])["serviceAccountName"]
    assert ("ServiceAccount", account) in OBJECTS
    binding = OBJECTS["RoleBinding", "easyml-deployer"]
    assert [each["name"] for each in binding["subjects"]] == [account]
    assert ("Role", binding["roleRef"]["name"]) in OBJECTS
    labels = OBJECTS["Deployment", "easyml-server"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        OBJECTS["Service", "easyml"]["spec"]["selector"],
        OBJECTS["PodDisruptionBudget", "easyml-server"]["spec"]["selector"]["matchLabels"],
        OBJECTS["NetworkPolicy", "easyml-server"]["spec"]["podSelector"]["matchLabels"],
        OBJECTS["Deployment", "easyml-server"]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_nothing_is_allowed_cluster_wide() -> None:
    assert not {kind for kind, _ in OBJECTS} & {"ClusterRole", "ClusterRoleBinding"}
    rules = OBJECTS["Role", "easyml-deployer"]["rules"]
    words = [word for rule in rules for words in rule.values() for word in words]
    assert "*" not in words
    assert "secrets" not in words
