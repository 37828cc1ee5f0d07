"""The Kubernetes of the tests: what the tests of deployments on it take for granted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import psutil
import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.security.tokens import Ed25519Signer
from tests.kubernetes.addresses import here
from tests.kubernetes.manifests import a_config_map, a_deployment, a_secret, a_service
from tests.kubernetes.parts import FAKE
from tests.proxy import proxy
from tests.servers import ROOT, eventually
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed
from tests.unit.serving.requests import VERSION, a_row, rows

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster

PORT = 50052
SERVE = ["-m", "http.server", "8080", "--bind", "0.0.0.0"]
LONG_SECONDS = 100
pytestmark = pytest.mark.slow


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """Of pods that are processes."""
    return cluster.plane.namespace()


def kubectl(cluster: Cluster, namespace: str, *arguments: str, **options: str) -> str:
    done = cluster.plane.kubectl("-n", namespace, *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(cluster: Cluster, namespace: str, *objects: dict[str, Any]) -> None:
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl(cluster, namespace, "apply", "--server-side", "--validate=strict", "-f", "-", given=given)


def rolled_out(cluster: Cluster, namespace: str, name: str) -> None:
    where = ("-n", namespace, "rollout", "status", f"deployment/{name}", f"--timeout={LONG_SECONDS}s")
    done = cluster.plane.kubectl(*where)
    assert done.returncode == 0, cluster.plane.described(namespace)


def pods(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    return list(cluster.plane.call("GET", f"/api/v1/namespaces/{namespace}/pods")["items"])


def container(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The status of the container of the only pod; empty if there is none yet."""
    statuses = [status for pod in pods(cluster, namespace) for status in pod["status"].get("containerStatuses", ())]
    return dict(statuses[0]) if statuses else {}


def ended(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """How it ended the last time."""
    return dict(container(cluster, namespace).get("lastState", {}).get("terminated", {}))


def waits(cluster: Cluster, namespace: str, reason: str, word: str) -> str:
    """The message, once the container waits for that reason, and says so with that word."""

    def look() -> str:
        waiting = container(cluster, namespace).get("state", {}).get("waiting", {})
        message = str(waiting.get("message", ""))
        return message if waiting.get("reason") == reason and word in message else ""

    return eventually(look)


def test_fake_pods_roll_out_and_nothing_runs_for_them(cluster: Cluster) -> None:
    namespace = cluster.plane.namespace(FAKE)
    apply(cluster, namespace, a_deployment("many", replicas=20))
    rolled_out(cluster, namespace, "many")
    assert {pod["spec"]["nodeName"] for pod in pods(cluster, namespace)} == {"fake"}


def test_who_has_no_rights_is_refused(cluster: Cluster, namespace: str) -> None:
    refused = cluster.plane.kubectl("-n", namespace, "get", "secrets", user="nobody")
    assert 'secrets is forbidden: User "nobody" cannot list resource' in refused.stderr
    config = cluster.plane.kubeconfig_of(namespace, "default")
    mine = cluster.plane.kubectl("--kubeconfig", str(config), "auth", "whoami", "-o", "name")
    assert mine.returncode == 0, mine.stderr


def test_pods_must_be_of_the_level_of_their_namespace(cluster: Cluster, namespace: str) -> None:
    container = {"name": "main", "image": "python"}
    pod = {"metadata": {"name": "loose"}, "spec": {"containers": [container]}}
    with pytest.raises(urllib.error.HTTPError) as refused:
        cluster.plane.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    assert refused.value.code == 403
    assert "violates PodSecurity" in json.load(refused.value)["message"]


def test_a_model_server_predicts_through_a_service(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    job = a_job(tmp_path, a_mixed_table(), target="level", features=FEATURES)
    succeed(job)
    signer, deployment = Ed25519Signer(tmp_path / "keys"), str(uuid4())
    probe = {"grpc": {"port": PORT, "service": deployment}}
    server = a_deployment(
        "model",
        image="registry.example/team/easyml:1.0",
        command=["easyml-model-server"],
        args=["--model", f"$(VERSION)={job.output_path}", "--name", f"{deployment}=$(VERSION)", "--host", "$(POD_IP)",
              "--port", str(PORT), "--jwks", "/etc/easyml/keys.json", "--audience", "$(AUDIENCE)"],
        env=[{"name": "AUDIENCE", "valueFrom": {"secretKeyRef": {"name": "about", "key": "audience"}}},
             {"name": "VERSION", "value": VERSION},
             {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        startupProbe={**probe, "failureThreshold": 60, "periodSeconds": 2, "timeoutSeconds": 20},
        readinessProbe={**probe, "periodSeconds": 1, "timeoutSeconds": 20},
        livenessProbe={"grpc": {"port": PORT, "service": "liveness"}, "periodSeconds": 5, "timeoutSeconds": 20},
        volumeMounts=[{"name": "keys", "mountPath": "/etc/easyml"}, {"name": "scratch", "mountPath": "/scratch"}],
        volumes=[{"name": "keys", "configMap": {"name": "keys"}}, {"name": "scratch", "emptyDir": {}}],
        grace_seconds=20,
    )  # fmt: skip
    keys = a_config_map("keys", {"keys.json": signer.jwks_path.read_text()})
    apply(cluster, namespace, keys, a_secret("about", {"audience": deployment}), server, a_service("model", PORT))
    rolled_out(cluster, namespace, "model")
    token = signer.sign_identity(uuid4(), deployment, datetime.now(UTC))
    assert asked(cluster, namespace, token) == VERSION
    log = kubectl(cluster, namespace, "logs", "deployment/model", "--tail=50")
    assert re.search(rf"READY 127\.\d+\.\d+\.\d+:{PORT}", log)


def asked(cluster: Cluster, namespace: str, token: str) -> str:
    """The version that answers through the Service; that its pod is ready may have come to it a little later."""
    service = cluster.plane.call("GET", f"/api/v1/namespaces/{namespace}/services/model")
    with grpc.insecure_channel(f"{here(service['spec']['clusterIP'])}:{PORT}") as channel:
        ask = channel.unary_unary("/easyml.v1.PredictionService/Predict")
        answer = ask(
            rows(a_row()).SerializeToString(),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=LONG_SECONDS,
            wait_for_ready=True,
        )
    return pb.PredictResponse.FromString(answer).model_version_id


def test_a_crash_loop_has_its_exit_code_its_logs_and_its_last_words(cluster: Cluster, namespace: str) -> None:
    program = "import sys; print('looking'); sys.exit('no such model')"
    apply(
        cluster,
        namespace,
        a_deployment("broken", args=["-uc", program], terminationMessagePolicy="FallbackToLogsOnError"),
    )
    waits(cluster, namespace, "CrashLoopBackOff", "restarting failed container")
    died = ended(cluster, namespace)
    assert (died["exitCode"], died["reason"], died["message"]) == (1, "Error", "looking\nno such model\n")
    before = kubectl(cluster, namespace, "logs", "deployment/broken", "--previous", "--tail=1")
    assert before == "no such model\n"
    eventually(lambda: container(cluster, namespace)["restartCount"] > 1)


def test_logs_are_followed_until_the_container_ends(cluster: Cluster, namespace: str) -> None:
    program = "; ".join(
        ["import signal", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])", "print('one')", "print('two')",
         "signal.sigwait([signal.SIGTERM])", "print('three')"]
    )  # fmt: skip
    apply(cluster, namespace, a_deployment("talking", args=["-uc", program]))
    rolled_out(cluster, namespace, "talking")
    (pod,) = pods(cluster, namespace)
    with subprocess.Popen(
        cluster.plane.command("-n", namespace, "logs", pod["metadata"]["name"], "--follow", "--tail=1"),
        env=cluster.plane.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "two\n"
        cluster.send(namespace, pod["metadata"]["name"], signal.SIGTERM)
        assert following.stdout.readline() == "three\n"
        assert following.wait(LONG_SECONDS) == 0


def test_what_a_pod_needs_is_waited_for_and_named(cluster: Cluster, namespace: str) -> None:
    program = "import os, sys, time; print(os.environ['WORD'], open(sys.argv[1]).read(), flush=True); time.sleep(1000)"
    waiting = a_deployment(
        "waiting",
        args=["-c", "$(PROGRAM)", "/etc/words/two"],
        env=[{"name": "PROGRAM", "value": program},
             {"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "one"}}}],
        volumeMounts=[{"name": "words", "mountPath": "/etc/words"}],
        volumes=[{"name": "words", "secret": {"secretName": "words", "items": [{"key": "second", "path": "two"}]}}],
    )  # fmt: skip
    apply(cluster, namespace, waiting)
    mounting = waits(cluster, namespace, "ContainerCreating", "words")
    assert mounting.endswith('volume "words" : secret "words" not found')
    apply(cluster, namespace, a_secret("words", {"second": "two"}))
    assert waits(cluster, namespace, "CreateContainerConfigError", "words") == 'configmap "words" not found'
    apply(cluster, namespace, a_config_map("words", {"one": "one"}))
    rolled_out(cluster, namespace, "waiting")
    eventually(lambda: kubectl(cluster, namespace, "logs", "deployment/waiting") == "one two\n")


def test_an_image_that_is_away_is_waited_for(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, a_deployment("waiting", image="registry.example/late:1", args=SERVE))
    waits(cluster, namespace, "ImagePullBackOff", "registry.example/late:1")
    cluster.images.put("late", cluster.images.get("python"))
    rolled_out(cluster, namespace, "waiting")


def test_a_container_that_does_not_answer_is_started_again(cluster: Cluster, namespace: str) -> None:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 2}
    apply(
        cluster,
        namespace,
        a_deployment("frozen", args=SERVE, readinessProbe=probe, livenessProbe=probe, grace_seconds=1),
    )
    rolled_out(cluster, namespace, "frozen")
    (pod,) = pods(cluster, namespace)
    cluster.send(namespace, pod["metadata"]["name"], signal.SIGSTOP)
    eventually(lambda: ended(cluster, namespace).get("exitCode") == 128 + signal.SIGKILL)
    rolled_out(cluster, namespace, "frozen")
    events = kubectl(cluster, namespace, "events", "--types=Warning")
    assert "Liveness probe failed" in events


def test_pods_of_a_lost_node_run_on_another(cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, a_deployment("moving", args=SERVE))
    rolled_out(cluster, namespace, "moving")
    (before,) = pods(cluster, namespace)
    lost = before["spec"]["nodeName"]
    cluster.lose(lost)
    try:
        eventually(lambda: {pod["spec"].get("nodeName") for pod in pods(cluster, namespace)} > {lost})
    finally:
        cluster.find_again(lost)
    eventually(lambda: len(pods(cluster, namespace)) == 1)
    rolled_out(cluster, namespace, "moving")
    assert pods(cluster, namespace)[0]["spec"]["nodeName"] != lost


def test_an_autoscaler_follows_what_the_metrics_server_says(cluster: Cluster) -> None:
    namespace = cluster.plane.namespace(FAKE)
    with cluster.metrics() as metrics:
        metrics.cpu[namespace, "busy"] = "300m"
        apply(cluster, namespace, a_deployment("busy", resources={"requests": {"cpu": "100m"}}))
        kubectl(cluster, namespace, "autoscale", "deployment/busy", "--cpu=50%", "--max=3")
        wanted = "--for=jsonpath={.status.readyReplicas}=3"
        kubectl(cluster, namespace, "wait", wanted, "deployment/busy", f"--timeout={LONG_SECONDS}s")


def test_a_connection_to_the_api_is_cut_and_given_back(cluster: Cluster) -> None:
    with proxy("127.0.0.1", cluster.plane.place.api_port) as between:
        config = cluster.plane.kubeconfig(server=f"https://127.0.0.1:{between.port}")
        ask = ("--kubeconfig", str(config), "get", "--raw", "/readyz")
        assert cluster.plane.kubectl(*ask).stdout == "ok"
        between.down()
        assert "refused" in cluster.plane.kubectl(*ask).stderr
        between.up()
        between.slow(0.01)
        assert cluster.plane.kubectl(*ask).stdout == "ok"


CLUSTER = """
import sys
from pathlib import Path
from tests.kubernetes.cluster import running_cluster
from tests.kubernetes.control_plane import running_control_plane
from tests.kubernetes.manifests import a_deployment
with running_control_plane(Path(sys.argv[1]) / "plane") as plane, running_cluster(plane):
    deployment = a_deployment("left", args=["-c", "import time; time.sleep(1000)"])
    plane.call("POST", f"/apis/apps/v1/namespaces/{plane.namespace()}/deployments", deployment)
    plane.kubectl("-n", "test-1", "rollout", "status", "deployment/left", "--timeout=100s")
    print("running", flush=True)
    sys.stdin.read()
"""


def test_nothing_outlives_tests_that_are_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == "running\n"
        family = psutil.Process(tests.pid).children(recursive=True)
        assert len(family) >= 6
        tests.kill()
    _, left = psutil.wait_procs(family, timeout=LONG_SECONDS)
    assert not left
