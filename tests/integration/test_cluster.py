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
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import psutil
import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml_server.security.tokens import Ed25519Signer
from tests.kubernetes.addresses import here
from tests.kubernetes.manifests import a_config_map, a_deployment, a_secret, a_service
from tests.kubernetes.namespaces import LONG_SECONDS, Namespace
from tests.kubernetes.parts import FAKE
from tests.proxy import proxy
from tests.servers import ROOT, eventually
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed
from tests.unit.serving.requests import VERSION, a_row, rows

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster

PORT = 50052
SERVE = ["-m", "http.server", "8080", "--bind", "0.0.0.0"]
pytestmark = pytest.mark.slow


@pytest.fixture
def namespace(cluster: Cluster) -> Namespace:
    """Of pods that are processes."""
    return Namespace(cluster.plane, cluster.plane.namespace())


@pytest.fixture
def fake(cluster: Cluster) -> Namespace:
    """Of pods in which nothing runs."""
    return Namespace(cluster.plane, cluster.plane.namespace(FAKE))


def test_fake_pods_roll_out_and_nothing_runs_for_them(fake: Namespace) -> None:
    fake.apply(a_deployment("many", replicas=20))
    fake.rolled_out("many")
    assert {pod["spec"]["nodeName"] for pod in fake.pods()} == {"fake"}


def test_fake_pods_fail_as_the_name_of_their_image_says(fake: Namespace) -> None:
    fates = ("crash", "missing", "unready")
    fake.apply(*(a_deployment(fate, image=f"registry.example/{fate}:1") for fate in fates))

    def reasons() -> dict[str, str]:
        found = {}
        for pod in fake.pods():
            for status in pod["status"].get("containerStatuses", ()):
                state = next(iter(status["state"].items()))
                found[pod["metadata"]["labels"]["app.kubernetes.io/instance"]] = state[1].get("reason", state[0])
        return found

    wanted = {"crash": "CrashLoopBackOff", "missing": "ImagePullBackOff", "unready": "running"}
    eventually(lambda: reasons() == wanted)


def test_who_has_no_rights_is_refused(cluster: Cluster, namespace: Namespace) -> None:
    refused = cluster.plane.kubectl("-n", namespace.name, "get", "secrets", user="nobody")
    assert 'secrets is forbidden: User "nobody" cannot list resource' in refused.stderr
    config = cluster.plane.kubeconfig_of(namespace.name, "default")
    mine = cluster.plane.kubectl("--kubeconfig", str(config), "auth", "whoami", "-o", "name")
    assert mine.returncode == 0, mine.stderr


def test_pods_must_be_of_the_level_of_their_namespace(cluster: Cluster, namespace: Namespace) -> None:
    container = {"name": "main", "image": "python"}
    pod = {"metadata": {"name": "loose"}, "spec": {"containers": [container]}}
    with pytest.raises(urllib.error.HTTPError) as refused:
        cluster.plane.call("POST", f"/api/v1/namespaces/{namespace.name}/pods", pod)
    assert refused.value.code == 403
    assert "violates PodSecurity" in json.load(refused.value)["message"]


def test_a_model_server_predicts_through_a_service(cluster: Cluster, namespace: Namespace, tmp_path: Path) -> None:
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
    namespace.apply(keys, a_secret("about", {"audience": deployment}), server, a_service("model", PORT))
    namespace.rolled_out("model")
    token = signer.sign_identity(uuid4(), deployment, datetime.now(UTC))
    assert asked(namespace, token) == VERSION
    log = namespace.kubectl("logs", "deployment/model", "--tail=50")
    assert re.search(rf"READY 127\.\d+\.\d+\.\d+:{PORT}", log)


def asked(namespace: Namespace, token: str) -> str:
    """The version that answers through the Service; that its pod is ready may have come to it a little later."""
    service = namespace.get("services", "model")
    with grpc.insecure_channel(f"{here(service['spec']['clusterIP'])}:{PORT}") as channel:
        ask = channel.unary_unary("/easyml.v1.PredictionService/Predict")
        answer = ask(
            rows(a_row()).SerializeToString(),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=LONG_SECONDS,
            wait_for_ready=True,
        )
    return pb.PredictResponse.FromString(answer).model_version_id


def test_a_crash_loop_has_its_exit_code_its_logs_and_its_last_words(cluster: Cluster, namespace: Namespace) -> None:
    program = "import sys; print('looking'); sys.exit('no such model')"
    namespace.apply(
        a_deployment("broken", args=["-uc", program], terminationMessagePolicy="FallbackToLogsOnError"),
    )
    namespace.waits("CrashLoopBackOff", "restarting failed container")
    died = namespace.ended()
    assert (died["exitCode"], died["reason"], died["message"]) == (1, "Error", "looking\nno such model\n")
    before = namespace.kubectl("logs", "deployment/broken", "--previous", "--tail=1")
    assert before == "no such model\n"
    eventually(lambda: namespace.container()["restartCount"] > 1)


def test_logs_are_followed_until_the_container_ends(cluster: Cluster, namespace: Namespace) -> None:
    program = "; ".join(
        ["import signal", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])", "print('one')", "print('two')",
         "signal.sigwait([signal.SIGTERM])", "print('three')"]
    )  # fmt: skip
    namespace.apply(a_deployment("talking", args=["-uc", program]))
    namespace.rolled_out("talking")
    pod = namespace.pod()
    with subprocess.Popen(
        cluster.plane.command("-n", namespace.name, "logs", pod, "--follow", "--tail=1"),
        env=cluster.plane.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "two\n"
        cluster.send(namespace.name, pod, signal.SIGTERM)
        assert following.stdout.readline() == "three\n"
        assert following.wait(LONG_SECONDS) == 0


READ_AGAIN = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
while True:
    print(os.environ["WORD"], open(sys.argv[1]).read(), flush=True)
    signal.sigwait([signal.SIGUSR1])
"""


def test_what_a_pod_needs_is_waited_for_and_named(cluster: Cluster, namespace: Namespace) -> None:
    waiting = a_deployment(
        "waiting",
        args=["-c", "$(PROGRAM)", "/etc/words/two"],
        env=[{"name": "PROGRAM", "value": READ_AGAIN},
             {"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "one"}}}],
        volumeMounts=[{"name": "words", "mountPath": "/etc/words"}],
        volumes=[{"name": "words", "secret": {"secretName": "words", "items": [{"key": "second", "path": "two"}]}}],
    )  # fmt: skip
    namespace.apply(waiting)
    mounting = namespace.waits("ContainerCreating", "words")
    assert mounting.endswith('volume "words" : secret "words" not found')
    namespace.apply(a_secret("words", {"second": "two"}))
    assert namespace.waits("CreateContainerConfigError", "words") == 'configmap "words" not found'
    namespace.apply(a_config_map("words", {"one": "one"}))
    namespace.rolled_out("waiting")
    eventually(lambda: namespace.kubectl("logs", "deployment/waiting") == "one two\n")
    namespace.apply(a_secret("words", {"second": "three"}))
    cluster.refresh()
    cluster.send(namespace.name, namespace.pod(), signal.SIGUSR1)
    eventually(lambda: namespace.kubectl("logs", "deployment/waiting") == "one two\none three\n")


def test_an_image_that_is_away_is_waited_for(cluster: Cluster, namespace: Namespace) -> None:
    namespace.apply(a_deployment("waiting", image="registry.example/late:1", args=SERVE))
    namespace.waits("ImagePullBackOff", "registry.example/late:1")
    cluster.images.put("late", cluster.images.get("python"))
    namespace.rolled_out("waiting")
    cluster.images.withdraw("late")


def test_a_container_that_does_not_answer_is_started_again(cluster: Cluster, namespace: Namespace) -> None:
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 2}
    namespace.apply(
        a_deployment("frozen", args=SERVE, readinessProbe=probe, livenessProbe=probe, grace_seconds=1),
    )
    namespace.rolled_out("frozen")
    cluster.send(namespace.name, namespace.pod(), signal.SIGSTOP)
    eventually(lambda: namespace.ended().get("exitCode") == 128 + signal.SIGKILL)
    namespace.rolled_out("frozen")
    events = namespace.kubectl("events", "--types=Warning")
    assert "Liveness probe failed" in events


def test_pods_of_a_lost_node_run_on_another(cluster: Cluster, namespace: Namespace) -> None:
    namespace.apply(a_deployment("moving", args=SERVE))
    namespace.rolled_out("moving")
    (before,) = namespace.pods()
    lost = before["spec"]["nodeName"]
    cluster.lose(lost)
    try:
        eventually(lambda: {pod["spec"].get("nodeName") for pod in namespace.pods()} > {lost})
    finally:
        cluster.find_again(lost)
    eventually(lambda: len(namespace.pods()) == 1)
    namespace.rolled_out("moving")
    assert namespace.pods()[0]["spec"]["nodeName"] != lost


def test_an_autoscaler_follows_what_the_metrics_server_says(cluster: Cluster, fake: Namespace) -> None:
    with cluster.metrics() as metrics:
        metrics.cpu[fake.name, "busy"] = "300m"
        fake.apply(a_deployment("busy", resources={"requests": {"cpu": "100m"}}))
        fake.kubectl("autoscale", "deployment/busy", "--cpu=50%", "--max=3")
        wanted = "--for=jsonpath={.status.readyReplicas}=3"
        fake.kubectl("wait", wanted, "deployment/busy", f"--timeout={LONG_SECONDS}s")


def test_a_connection_to_the_api_is_cut_and_given_back(cluster: Cluster) -> None:
    with proxy("127.0.0.1", cluster.plane.place.api_port) as between:
        config = cluster.plane.kubeconfig(server=f"https://127.0.0.1:{between.port}")
        ask = ("--kubeconfig", str(config), "get", "--raw", "/readyz")
        assert cluster.plane.kubectl(*ask).stdout == "ok"
        between.down()
        assert "refused" in cluster.plane.kubectl(*ask).stderr
        between.up()
        between.cut()
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
