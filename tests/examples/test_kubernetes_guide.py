"""docs/guides/kubernetes.md, typed into a shell beside the Kubernetes of the tests, a PostgreSQL and a bucket."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from easyml.v1 import auth_service_pb2, project_service_pb2
from tests.builders import a_project_of
from tests.examples.blocks import ROOT, blocks
from tests.kubernetes.addresses import here
from tests.kubernetes.manifests import a_deployment
from tests.postgresql import postgresql
from tests.s3 import s3
from tests.servers import Client, eventually

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster

GUIDE = ROOT / "docs" / "guides" / "kubernetes.md"
OVERLAY = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
EMAIL, PASSWORD = "me@example.org", "a-long-enough-password"
PORT = 50051

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Shell:
    """A checkout's `deploy` and the reader's own folder `cluster`, with kubectl and EasyML's commands in PATH."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        (folder / "cluster").mkdir()
        (folder / "bin").mkdir()
        kubectl = folder / "bin" / "kubectl"
        kubectl.write_text(f'#!/bin/sh\nexec {" ".join(cluster.plane.command())} "$@"\n')
        kubectl.chmod(0o755)

    def type(self, commands: str, **variables: str) -> str:
        """What they print; they must succeed."""
        environment = {**self.cluster.plane.environment(), **variables}
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env={**environment, "PATH": path},
            capture_output=True,
            text=True,
            timeout=320,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.cluster.plane.described("easyml")
        return done.stdout


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A database and a bucket, as the servers are told of them; no value begins with a path that pods mount."""
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as postgres, s3() as store:
        url = postgres.database_url(asyncio.run(postgres.create_database())).replace("host=/", "host=%2F")
        yield {"EASYML_DATABASE_URL": url, "BUCKET": store.new_bucket(), **store.environment()}


@pytest.fixture(scope="module")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Beside a cluster whose namespaces say which nodes are for them."""
    for name in ("easyml", "easyml-models"):
        cluster.plane.namespace(name=name)
    return Shell(cluster, tmp_path_factory.mktemp("guide"))


def typed_as_the_guide_says(shell: Shell, secrets: dict[str, str]) -> None:
    """Everything up to the first account."""
    (overlay,) = OVERLAY.findall(GUIDE.read_text())
    overlay = overlay.replace("s3://bucket/", f"s3://{secrets['BUCKET']}/")
    (shell.folder / "cluster" / "kustomization.yaml").write_text(overlay)
    namespaces, more_secrets, start = blocks(GUIDE, "bash")
    shell.type(namespaces)
    filled_in = shell.folder / "cluster" / "secrets.env"
    names = {line.split("=")[0] for line in filled_in.read_text().splitlines() if not line.startswith("#")}
    assert names <= set(secrets)
    filled_in.write_text("".join(f"{name}={value}\n" for name, value in secrets.items() if name != "BUCKET"))
    shell.type(more_secrets)
    shell.type(start)


def addresses(cluster: Cluster) -> list[str]:
    """Where the pods that the Service stands for listen."""
    slices = cluster.plane.call("GET", "/apis/discovery.k8s.io/v1/namespaces/easyml/endpointslices")["items"]
    endpoints = [endpoint for each in slices for endpoint in each["endpoints"] or ()]
    return [f"{here(each['addresses'][0])}:{PORT}" for each in endpoints if each["conditions"]["ready"]]


def test_two_servers_in_pods_answer_as_one(shell: Shell, secrets: dict[str, str]) -> None:
    typed_as_the_guide_says(shell, secrets)
    password = shell.folder / "password"
    password.write_text(PASSWORD)
    init = f"easyml-server init {EMAIL} --data-dir {shell.folder}/init --password-file {password}"
    files = {"EASYML_ARTIFACT_URL": f"s3://{secrets['BUCKET']}/easyml"}
    key = {"EASYML_SIGNING_KEY_FILE": str(shell.folder / "cluster" / "signing.pem")}
    shell.type(init, **secrets, **files, **key)
    # That a pod is ready comes to the Service a little later than to its deployment.
    first, second = eventually(lambda: found if len(found := addresses(shell.cluster)) == 2 else None)
    with Client(first) as client:
        signed_in = client.auth.Login(auth_service_pb2.LoginRequest(email=EMAIL, password=PASSWORD))
    token = signed_in.session.access_token
    with Client(first, token) as one, Client(second, token) as other:
        project_id = a_project_of(one)
        listed = other.projects.ListProjects(project_service_pb2.ListProjectsRequest()).projects
        assert project_id in {project.id for project in listed}


REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
NAMESPACE = {"namespace": "easyml-models"}
EVERYBODYS = ("authorization.k8s.io", "authentication.k8s.io", "certificates.k8s.io")
"""Groups in which everybody may ask about themselves."""
LOOK = {"get", "list", "watch"}
CHANGE = LOOK | {"create", "patch", "delete"}
ALLOWED = {
    "apps deployments": CHANGE,
    "services": CHANGE,
    "configmaps": CHANGE,
    "networking.k8s.io networkpolicies": CHANGE,
    "policy poddisruptionbudgets": CHANGE,
    "pods": LOOK,
    "events": LOOK,
    "pods/log": {"get"},
}


def test_servers_may_have_models_run_in_one_namespace_and_nothing_else(shell: Shell) -> None:
    shell.type("kubectl apply --server-side -f deploy/kubernetes/namespaces.yaml -f deploy/kubernetes/rbac.yaml")
    plane = shell.cluster.plane
    mine = ("--kubeconfig", str(plane.kubeconfig_of("easyml", "easyml-server")))
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": NAMESPACE}
    said = plane.kubectl(*mine, "create", "--raw", REVIEWS, "-f", "-", given=json.dumps(review))
    assert said.returncode == 0, said.stderr
    found = {
        f"{group} {resource}".strip(): set(rule["verbs"])
        for rule in json.loads(said.stdout)["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert {what: verbs for what, verbs in found.items() if what.split()[0] not in EVERYBODYS} == ALLOWED
    model = json.dumps(a_deployment("model"))
    where = (*mine, "-n", "easyml-models", "apply", "--server-side", "-f", "-")
    assert plane.kubectl(*where, given=model).returncode == 0
    elsewhere = plane.kubectl(*mine, "-n", "easyml", "apply", "--server-side", "-f", "-", given=model)
    assert "is forbidden" in elsewhere.stderr
    assert "is forbidden" in plane.kubectl(*mine, "-n", "easyml-models", "get", "secrets").stderr
    assert "is forbidden" in plane.kubectl(*mine, "get", "nodes").stderr
