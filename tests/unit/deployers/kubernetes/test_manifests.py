"""The objects of a revision: everything that a cluster, its admission or a caller depends on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from easyml_server.deployers.kubernetes.manifests import manifests
from easyml_server.deployers.kubernetes.names import deployment_name, revision_name
from easyml_server.deployers.kubernetes.target import Target
from easyml_server.domain.containers import Container, SecretReference
from easyml_server.domain.deployments import Probes
from easyml_server.ports.deployer import ServedRevision
from tests.unit.deployers.kubernetes.revisions import DEPLOYMENT, REVISION, SOURCE, TARGET, VERSION, a_revision

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def objects_of(revision: ServedRevision, target: Target = TARGET) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["kind"], each["metadata"]["name"]): each for each in manifests(revision, SOURCE, target)}


def deployment_of(revision: ServedRevision, target: Target = TARGET) -> dict[str, Any]:
    spec: dict[str, Any] = objects_of(revision, target)["Deployment", revision_name(revision)]["spec"]
    return spec


def container_of(revision: ServedRevision, target: Target = TARGET) -> dict[str, Any]:
    (container,) = deployment_of(revision, target)["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize(
    "name", ["churn", "Churn of Customers", "x" * 255, "-_-", "ÄÖÜ", "9 lives", "a" * 30 + "-" * 30]
)
@pytest.mark.parametrize("number", [1, 2_000_000_000])
def test_names_are_those_of_a_service_whatever_the_deployment_is_called(name: str, number: int) -> None:
    revision = replace(a_revision(name), number=number)
    for found in (revision_name(revision), deployment_name(revision)):
        assert LABEL.fullmatch(found)
        # A pod's name has 17 characters more.
        assert len(found) <= 63 - 17
    assert revision_name(revision) == revision_name(replace(revision, replicas=9))
    assert revision_name(revision) != revision_name(replace(revision, id=DEPLOYMENT))


def test_a_revision_has_what_it_needs_and_its_pods_come_last() -> None:
    name = "easyml-churn-r3-bbbbbbbb"
    kinds = [(each["kind"], each["metadata"]["name"]) for each in manifests(a_revision(), SOURCE, TARGET)]
    assert kinds == [
        ("ConfigMap", name),
        ("NetworkPolicy", name),
        ("Service", name),
        ("Deployment", name),
        ("PodDisruptionBudget", name),
    ]
    assert ("PodDisruptionBudget", name) not in objects_of(a_revision(replicas=1))
    assert ("Service", "easyml-churn-aaaaaaaa") in objects_of(a_revision(active=True))


def test_everything_is_labelled_and_selected_by_what_cannot_change() -> None:
    chosen = {"easyml.io/deployment-id": str(DEPLOYMENT), "easyml.io/revision-id": str(REVISION)}
    for found in manifests(a_revision(active=True), SOURCE, TARGET):
        labels = found["metadata"]["labels"]
        assert found["metadata"]["namespace"] == "models"
        assert labels == {
            "app.kubernetes.io/name": "easyml-model-server",
            "app.kubernetes.io/instance": "easyml-churn-aaaaaaaa",
            "app.kubernetes.io/version": "3",
            "app.kubernetes.io/component": "model-server",
            "app.kubernetes.io/part-of": "easyml",
            "app.kubernetes.io/managed-by": "easyml-server",
            "easyml.io/signing-key": TARGET.owner,
            **chosen,
        }
        assert all(re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", each) for each in labels.values())
    objects = objects_of(a_revision(active=True))
    name = revision_name(a_revision())
    assert objects["Deployment", name]["spec"]["selector"] == {"matchLabels": chosen}
    assert objects["Deployment", name]["spec"]["template"]["metadata"]["labels"].items() >= chosen.items()
    assert objects["PodDisruptionBudget", name]["spec"]["selector"] == {"matchLabels": chosen}
    assert objects["NetworkPolicy", name]["spec"]["podSelector"] == {"matchLabels": chosen}
    for service in (name, deployment_name(a_revision())):
        assert objects["Service", service]["spec"]["selector"] == chosen
        assert objects["Service", service]["spec"]["clusterIP"] == "None"


def test_pods_are_as_restricted_as_namespaces_may_ask() -> None:
    pod = deployment_of(a_revision())["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    security = pod["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container_of(a_revision())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {each["mountPath"]: each for each in container_of(a_revision())["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert mounts["/etc/easyml"]["readOnly"]
    assert volumes[mounts["/etc/easyml"]["name"]]["configMap"] == {"name": revision_name(a_revision())}
    assert "emptyDir" in volumes[mounts["/tmp"]["name"]]


def test_the_model_server_is_told_what_it_serves_and_whom() -> None:
    container = container_of(a_revision())
    assert container["command"] == ["easyml-model-server"]
    assert container["args"] == [
        f"--model={VERSION}=s3://models/files/p/models/v@sha256:{'0' * 64}",
        f"--name={DEPLOYMENT}={VERSION}",
        f"--name=project/churn={VERSION}",
        f"--name=churn={VERSION}",
        f"--audience={DEPLOYMENT}",
        "--jwks=/etc/easyml/jwks.json",
        "--host=0.0.0.0",
        "--port=50051",
        "--metrics-port=9090",
        "--drain-grace-seconds=20",
        "--log-format=json",
        "--x=1",
    ]
    assert objects_of(a_revision())["ConfigMap", revision_name(a_revision())]["data"] == {"jwks.json": TARGET.keys}
    assert not any(f"--name={VERSION}=" in each for each in container_of(a_revision(str(VERSION)))["args"])


def test_a_replica_has_around_it_what_was_asked_for() -> None:
    asked = Container(
        base_image="registry.example/own@sha256:" + "1" * 64,
        cpu_request="500m",
        cpu_limit="2",
        memory_request="256Mi",
        memory_limit="1Gi",
        environment=(("MODE", "fast"), ("OMP_NUM_THREADS", "2")),
        secrets=(SecretReference("PASSWORD", "database", "password"),),
    )
    container = container_of(a_revision(container=asked))
    assert container["image"] == asked.base_image
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "256Mi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }
    variables = {each["name"]: each for each in container["env"]}
    assert len(variables) == len(container["env"])
    assert variables["MODE"]["value"] == "fast"
    assert variables["OMP_NUM_THREADS"]["value"] == "2"
    reference = {"name": "database", "key": "password"}
    assert variables["PASSWORD"] == {"name": "PASSWORD", "valueFrom": {"secretKeyRef": reference}}
    assert variables["TMPDIR"]["value"] == "/tmp"
    as_it_is = container_of(a_revision())
    assert as_it_is["image"] == TARGET.image
    assert "resources" not in as_it_is
    assert "envFrom" not in as_it_is


def test_what_the_operator_set_is_kept_to() -> None:
    target = replace(
        TARGET,
        image_pull_policy="Always",
        image_pull_secret="registry",
        service_account="models",
        store_secret="store",
    )
    container, pod = container_of(a_revision(), target), deployment_of(a_revision(), target)["template"]["spec"]
    assert container["imagePullPolicy"] == "Always"
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert (pod["imagePullSecrets"], pod["serviceAccountName"]) == ([{"name": "registry"}], "models")


def test_probes_and_times_follow_from_what_was_asked_for() -> None:
    probes = Probes(startup_seconds=90, period_seconds=0.5, timeout_seconds=1.5, failure_threshold=4)
    container = container_of(a_revision(probes=probes))
    startup, alive, ready = (container[f"{each}Probe"] for each in ("startup", "liveness", "readiness"))
    assert startup["periodSeconds"] * startup["failureThreshold"] == 90
    assert (alive["periodSeconds"], alive["timeoutSeconds"], alive["failureThreshold"]) == (1, 2, 4)
    assert (startup["grpc"], alive["grpc"]) == ({"port": 50051, "service": "liveness"},) * 2
    assert ready["grpc"] == {"port": 50051}
    deployment = deployment_of(a_revision(probes=probes))
    assert deployment["progressDeadlineSeconds"] > 90
    assert deployment["replicas"] == 2
    pod = deployment["template"]["spec"]
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > leaving + 20
