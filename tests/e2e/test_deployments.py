"""Deployments as people have them: from Python, from asyncio, and from the shell."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from easyml_client import (
    AsyncEasyML,
    DeploymentFailed,
    EasyML,
    InvalidInput,
    ModelSelectionCriteria,
    NotFound,
    WrongState,
)
from easyml_client.resources.deployment_metrics import DeploymentMetrics
from easyml_client.resources.deployments import Deployment
from tests.e2e.conftest import Server
from tests.e2e.test_cli import Shell
from tests.servers import ServerProcess, deploying, eventually

pytestmark = pytest.mark.slow

ROW = {"sepal_length": 5, "sepal_width": 3.4, "petal_length": 1.5, "petal_width": 0.2}
CELLS = [f"{name}={value}" for name, value in ROW.items()]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with deploying(tmp_path_factory.mktemp("deployments") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def project(process: ServerProcess, iris: Path) -> str:
    """With two versions of one model."""
    name = f"flowers-{uuid.uuid4()}"
    with EasyML(process.address, process.key) as client:
        client.projects.create(name)
        dataset = client.datasets.upload(name, iris)
        for seed in (1, 2):
            client.trainings.start(
                name, dataset=dataset, target="species", algorithm="decision_tree", model_name="iris", seed=seed
            ).result()
    return name


@pytest.fixture
def client(process: ServerProcess) -> Any:
    with EasyML(process.address, process.key) as client:
        yield client


def test_a_deployment_from_python(client: EasyML, project: str) -> None:
    planned = client.deployments.validate(project, "species", "iris:1", environment="staging")
    assert (planned.name, planned.latest_revision) == ("species", 1)
    with pytest.raises(InvalidInput, match="did you mean 'staging'"):
        client.deployments.create(project, "species", "iris:1", environment="stageing")
    with pytest.raises(InvalidInput, match="There is no probe setting 'startup'"):
        client.deployments.create(project, "species", "iris:1", probes={"startup": 1})
    rollout = client.deployments.create(
        project, "species", "iris:1", environment="staging", probes={"period_seconds": 1}
    )
    ready = rollout.result(timeout=60)
    assert ready.arrived
    assert ready.config is not None
    assert ready.config.environment == "staging"
    assert client.models.get("iris@staging", project=project).version == 1
    assert client.predictions.predict(ready, ROW).values == ["setosa"]
    (streamed,) = client.predictions.stream(ready, [[ROW, ROW]])
    assert streamed.values == ["setosa", "setosa"]
    assert eventually(lambda: counted(client.deployments.metrics(ready)) == {1: 2})
    told = client.deployments.metrics("species", project=project, window=dt.timedelta(hours=1))
    assert told.revisions[0].requests_by_code == {"OK": 2}
    assert told.revisions[0].latency is not None
    with pytest.raises(InvalidInput, match="window"):
        client.deployments.metrics(ready, window=0.5)
    (line,) = client.deployments.logs(ready, tail=1)
    assert (line.revision, line.replica_id) == (1, ready.replicas[0].id)
    token = client.deployments.token("species", project=project)
    with EasyML(ready.endpoints[0], token.token) as direct:
        assert direct.predictions.predict(ready, ROW).values == ["setosa"]

    changed = client.deployments.update("species", "iris:2", project=project).result(timeout=60)
    assert (changed.active_revision, changed.config and changed.config.environment) == (2, "staging")
    scaled = client.deployments.scale(changed, 2)
    assert client.deployments.result(scaled, timeout=60).ready_replicas == 2
    assert client.deployments.rollback(changed).result(timeout=60).active_revision == 3
    assert [each.model_version for each in client.deployments.revisions(changed)] == [1, 2, 1]
    assert [each.name for each in client.deployments.list(project)] == ["species"]
    stopped = client.deployments.stop(changed)
    with pytest.raises(DeploymentFailed, match="it was stopped"):
        client.deployments.result(stopped)
    watch = client.deployments.watch(changed)
    next(watch)
    client.deployments.delete(changed)
    assert [each.state for each in watch][-1:] in ([], ["stopped"], ["stopping"])
    with pytest.raises(NotFound):
        client.deployments.get("species", project=project)


def counted(metrics: DeploymentMetrics) -> dict[int, int]:
    return {each.revision: each.requests for each in metrics.revisions}


def test_a_watch_survives_a_server_that_is_killed(process: ServerProcess, client: EasyML, project: str) -> None:
    rollout = client.deployments.create(project, "kept", "iris:1")
    rollout.result(timeout=60)
    watch = rollout.watch()
    before = next(watch)
    process.leave()
    process.start()
    client.deployments.scale(before, 2)
    after = next(each for each in watch if each.ready_replicas == 2)
    assert after.sequence > before.sequence
    client.deployments.delete(before)


async def test_a_deployment_from_asyncio(process: ServerProcess, project: str) -> None:
    async with AsyncEasyML(process.address, process.key) as client:
        rollout = await client.deployments.create(project, "async", "iris")
        ready = await rollout.result(timeout=60)
        answer = await client.predictions.predict(ready, ROW)
        assert answer.values == ["setosa"]
        async for now in rollout.watch():
            assert now.arrived
            break
        async for line in client.deployments.logs(ready, follow=True):
            assert line.replica_id == ready.replicas[0].id
            break
        assert (await client.deployments.metrics(ready, window=60)).end_time is not None
        await client.deployments.delete(ready)


@pytest.fixture
def shell(process: ServerProcess, project: str) -> Shell:
    shell = Shell(Server(process.data))
    shell.project = project
    shell.environment |= {"EASYML_PROJECT": project, "EASYML_TARGET": process.address, "EASYML_TOKEN": process.key}
    return shell


def counted_revisions(shell: Shell) -> set[int]:
    counts = shell.json("deployments", "metrics", "iris", "--window", "1h")
    assert isinstance(counts, dict)
    return {each["revision"] for each in counts["revisions"]}


def test_a_deployment_from_the_shell(process: ServerProcess, shell: Shell, tmp_path: Path) -> None:
    assert "as revision 1 of iris" in shell.ask("deploy", "iris:1", "--dry-run")
    lines = shell.ask("deploy", "iris:1", "-e", "production").splitlines()
    assert "ready, 1 of 1 replicas, revision 1 answers" in lines[-1]
    (listed,) = shell.json("deployments", "list")  # type: ignore[misc]
    assert (listed["name"], listed["state"]) == ("iris", "ready")
    assert shell.ask("predict", "--deployment", "iris", "--row", *CELLS).splitlines()[1].startswith("setosa")
    table = tmp_path / "rows.csv"
    table.write_text(",".join(ROW) + "\n" + ",".join(map(str, ROW.values())) + "\n")
    answer = shell.json("predict", "--deployment", "iris", str(table))
    assert isinstance(answer, dict)
    assert answer["values"] == ["setosa"]
    code, _, err = shell.run("predict", "iris", str(table), "--deployment", "iris")
    assert (code, err) == (2, "Say who answers: MODEL, or --deployment NAME.\n")

    assert "revision 2 of iris" in shell.ask("deploy", "iris:2", "--dry-run")
    assert "revision 2 answers" in shell.ask("deploy", "iris:2").splitlines()[-1]
    assert "2 of 2 replicas" in shell.ask("deployments", "scale", "iris", "2").splitlines()[-1]
    assert "revision 3 answers" in shell.ask("deployments", "rollback", "iris").splitlines()[-1]
    assert [line.split("\t")[:3] for line in shell.ask("deployments", "revisions", "iris").splitlines()[1:]] == [
        ["3", "iris:1", "active"],
        ["2", "iris:2", "retired"],
        ["1", "iris:1", "retired"],
    ]
    shown = shell.ask("deployments", "show", "iris")
    assert "3 answers, 3 is the newest" in shown
    assert "available" in shown
    # Replicas are read every few seconds, and the last revision has only just begun.
    assert eventually(lambda: counted_revisions(shell) == {1, 2, 3})
    titles, newest, *_ = shell.ask("deployments", "metrics", "iris").splitlines()
    assert titles.split("\t")[:4] == ["REVISION", "REQUESTS", "ERRORS", "PER SECOND"]
    assert newest.split("\t")[0] == "3"
    code, _, err = shell.run("deployments", "metrics", "iris", "--window", "2h")
    assert (code, "window" in err) == (1, True)
    assert "/metrics" in shell.ask("deployments", "logs", "iris", "--tail", "5")
    logged = shell.ask("deployments", "logs", "iris", "--tail", "1", "--json").splitlines()
    assert {json.loads(line)["revision"] for line in logged} == {3}
    token = shell.ask("token", "for", "iris").strip()
    with EasyML(listed["replicas"][0]["endpoint"], token):
        assert token.count(".") == 2
    assert shell.ask("deployments", "stop", "iris") == "Stopped iris.\n"
    code, _, err = shell.run("predict", "--deployment", "iris", "--row", *CELLS)
    assert code == 1
    assert "was stopped" in err
    code, _, err = shell.run("deployments", "promote", "iris")
    assert (code, "was stopped; roll it back to one of its revisions (the newest is 3)" in err) == (1, True)
    said = "iris is stopped, and is so once it is started: easyml deployments rollback iris 3\n"
    assert shell.ask("deployments", "scale", "iris", "2") == said
    code, _, err = shell.run("deployments", "delete", "iris")
    assert (code, "Add --yes" in err) == (2, True)
    assert shell.ask("deployments", "delete", "iris", "--yes") == "Deleted iris.\n"


def test_the_best_version_is_found_and_deployed(client: EasyML, project: str) -> None:
    best = ModelSelectionCriteria("accuracy", model="iris", secondary={"log_loss": None}, threshold=0.5)
    selection = client.models.select(project, best)
    assert [each.rank for each in selection.candidates] == [1, 2]
    assert selection.model_version.inference_time_ms == selection.candidates[0].inference_time_ms
    with pytest.raises(WrongState, match="None of 2 model versions meets the criteria") as refused:
        client.models.select(project, dataclasses.replace(best, max_size_bytes=1))
    assert refused.value.reason == "NO_ELIGIBLE_MODEL"
    with pytest.raises(InvalidInput, match="did you mean 'accuracy'"):
        client.models.select(project, ModelSelectionCriteria("acuracy"))
    rollout = client.deployments.create(project, "best", dataclasses.replace(best, prefer_latest=True))
    (revision,) = client.deployments.revisions(rollout.deployment)
    assert revision.model_version == 2
    client.deployments.update(rollout.deployment, best)
    newest, _ = client.deployments.revisions(rollout.deployment)
    assert newest.model_version_id == selection.model_version.id
    client.deployments.delete(rollout.deployment)


def test_the_best_version_is_found_and_deployed_from_the_shell(shell: Shell) -> None:
    said = shell.ask("models", "select", "accuracy", "iris", "--then", "log_loss=99", "--latest").splitlines()
    assert said[0].startswith("iris:2 it is. Serve it with: easyml deploy ")
    assert said[2].startswith("1\tiris:2\taccuracy ")
    found = shell.json("models", "select", "accuracy")
    assert isinstance(found, dict)
    assert found["candidates"][0]["reason"].startswith("Best accuracy: ")
    assert "Would serve iris:2 as revision 1 of iris, by rolling." in shell.ask(
        "deploy", "--best", "accuracy", "--latest", "--dry-run"
    )
    code, _, err = shell.run("models", "select", "accuracy", "--threshold", "2")
    assert (code, "relax them, or train one that does" in err) == (1, True)
    for arguments, message in (
        (["deploy", "iris", "--validated"], "--best METRIC"),
        (["deploy"], "Say what to serve"),
        (["models", "select", "accuracy", "--then", "log_loss=low"], "log_loss=0.4"),
    ):
        code, _, err = shell.run(*arguments)
        assert (code, message in err) == (2, True)


def test_a_template_is_deployed_with_changes(client: EasyML, project: str) -> None:
    production = client.deployments.template("production")
    assert (production.environment, production.strategy) == ("production", "canary")
    found = client.deployments.validate_config(project, "iris:1", config=production, replicas=1)
    assert found.problems == ()
    assert found.config is not None
    assert found.config.scaling is not None
    assert found.config.scaling.replicas == 1
    wrong = client.deployments.validate_config(project, replicas=1000, container={"cpu_limit": "2x"})
    assert [each.field for each in wrong.problems] == ["config.scaling.replicas", "config.container.cpu_limit"]
    container = {"memory_limit": "2Gi", "environment": {"TZ": "UTC"}}
    made = client.deployments.validate(project, "careful", "iris:1", config=production, container=container)
    assert made.config is not None
    assert made.config.canary == production.canary
    assert made.config.container is not None
    assert (made.config.container.memory_limit, made.config.container.environment) == ("2Gi", {"TZ": "UTC"})
    with pytest.raises(InvalidInput, match="These are no settings of a container"):
        client.deployments.create(project, "careful", "iris:1", container={"memory": "2Gi"})


def test_a_template_and_problems_from_the_shell(shell: Shell) -> None:
    shown = shell.ask("deployments", "template", "production")
    assert "10 % for 300 s, 50 % for 300 s; taken back by 1 % more errors or 2 times the p99" in shown
    config = shell.json("deployments", "template")
    assert isinstance(config, dict)
    assert (config["environment"], config["scaling"]["replicas"]) == ("development", 1)
    assert shell.ask("deploy", "iris:1", "--template", "-e", "staging", "--validate") == "Nothing is wrong with it.\n"
    wrong = ("--replicas", "1000", "--memory-limit", "1Mi", "--env", "PATH=x", "--target", "kubernetes")
    code, _, err = shell.run("deploy", "iris:1", *wrong, "--validate")
    assert code == 1
    assert "EASYML_KUBERNETES_NAMESPACE" in err
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        "config.target",
        "config.scaling.replicas",
        'config.container.environment["PATH"]',
        "config.container.memory_limit",
    ]
    here = ("--image", "x", "--cpu-request", "1", "--cpu-limit", "2", "--memory-request", "1Gi", "--secret", "A=s/k")
    code, _, err = shell.run("deploy", "iris:1", *here, "--validate")
    assert code == 1
    assert [line.partition(":")[0].removeprefix("config.container.") for line in err.splitlines()] == [
        "base_image",
        "cpu_request",
        "cpu_limit",
        "memory_request",
        "secrets",
    ]
    code, _, err = shell.run("deploy", "iris:1", "--secret", "A=s", "--validate")
    assert (code, "KEY=SECRET/ENTRY" in err) == (2, True)


def test_ctrl_c_leaves_a_deployment_going_on_and_a_failure_is_told_with_its_log(
    process: ServerProcess, shell: Shell, client: EasyML
) -> None:
    shell.ask("deploy", "iris:1", "--name", "watched", "--no-wait")
    watching = shell.start("deployments", "watch", "watched", "--json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["name"] == "watched"
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert client.deployments.result("watched", project=shell.project, timeout=60).arrived

    version = client.models.get("iris:2", project=shell.project)
    (graph,) = process.data.glob(f"files/*/models/{version.id}/*.onnx")
    whole = graph.read_bytes()
    graph.chmod(0o600)
    graph.write_bytes(b"changed")
    code, _, err = shell.run("deploy", "iris:2", "--name", "watched")
    graph.write_bytes(whole)
    assert code == 1
    assert "Revision 2 is not ready: The stored model cannot be served; its log says why." in err
    assert "Revision 1 answers meanwhile." in err
    assert "cannot be served: " in err
    client.deployments.delete(client.deployments.get("watched", project=shell.project))


QUICKLY_IDLE = {"min_replicas": 0, "max_replicas": 2, "cooldown_seconds": 1}


def idle(client: EasyML, deployment: Deployment) -> Deployment:
    """The deployment once no replica of it is left."""
    return next(now for now in client.deployments.watch(deployment) if now.idle and not now.replicas)


def test_an_idle_deployment_answers_the_first_call_and_is_idle_again(client: EasyML, project: str) -> None:
    made = client.deployments.create(project, "idle", "iris:1", scaling=QUICKLY_IDLE).deployment
    for _ in range(2):
        found = idle(client, made)
        assert (found.state, found.wanted_replicas, found.arrived) == ("ready", 0, True)
        assert client.predictions.predict(found, ROW).values == ["setosa"]
    client.deployments.delete(made)


async def test_what_is_not_said_of_a_scaling_stays(client: EasyML, process: ServerProcess, project: str) -> None:
    made = client.deployments.create(project, "bounds", "iris:1", scaling=QUICKLY_IDLE).deployment
    async with AsyncEasyML(process.address, process.key) as there:
        wider = scaling_of(await there.deployments.scale(made, scaling={"max_replicas": 5}))
    assert wider == QUICKLY_IDLE | {
        "replicas": 0,
        "max_replicas": 5,
        "target_requests_in_flight": 8,
        "target_cpu_percent": None,
    }
    planned = client.deployments.update(made, scaling={"min_replicas": 1}, validate_only=True).deployment
    assert scaling_of(planned) == wider | {"min_replicas": 1}
    fixed = client.deployments.update(made, replicas=2, validate_only=True).deployment
    assert (fixed.wanted_replicas, scaling_of(fixed)["max_replicas"]) == (2, None)
    with pytest.raises(InvalidInput, match="leave one of the two out"):
        client.deployments.update(made, replicas=2, scaling={"max_replicas": 3})
    with pytest.raises(InvalidInput, match="There is no scaling setting 'maximum'; there are replicas, min_replicas"):
        client.deployments.scale(made, scaling={"maximum": 3})
    problems = client.deployments.validate_config(project, scaling={"min_replicas": 3, "max_replicas": 2}).problems
    assert [each.field for each in problems] == ["config.scaling.min_replicas", "config.scaling.max_replicas"]
    assert client.deployments.scale(made, 1).wanted_replicas == 1
    client.deployments.delete(made)


def scaling_of(deployment: Deployment) -> dict[str, Any]:
    assert deployment.config is not None
    assert deployment.config.scaling is not None
    return deployment.config.scaling.to_dict()


def test_a_scaling_from_the_shell(shell: Shell, client: EasyML) -> None:
    bounds = ("--min-replicas", "0", "--max-replicas", "2", "--target-in-flight", "4", "--cooldown-seconds", "1")
    assert "ready, 1 of 1 replicas" in shell.ask("deploy", "iris:1", "--name", "busy", *bounds).splitlines()[-1]
    idle(client, client.deployments.get("busy", project=shell.project))
    shown = shell.ask("deployments", "show", "busy")
    assert "0 to 2 replicas for 4 calls in flight each, fewer after 1 s" in shown
    assert "No replica runs while nobody calls; the next call starts one, and waits." in shown
    scaled = shell.ask("deployments", "scale", "busy", "--max", "3").splitlines()[-1]
    assert "0 of 0 replicas, revision 1 answers, idle until somebody calls" in scaled
    assert "1 of 1 replicas" in shell.ask("deployments", "scale", "busy", "--min", "1").splitlines()[-1]
    listed = shell.json("deployments", "list")
    assert isinstance(listed, list)
    scaling = next(each for each in listed if each["name"] == "busy")["config"]["scaling"]
    assert (scaling["min_replicas"], scaling["max_replicas"], scaling["target_requests_in_flight"]) == (1, 3, 4)
    code, _, err = shell.run("deployments", "scale", "busy", "--min", "5")
    assert (code, "min_replicas (5) is above max_replicas (3)" in err) == (1, True)
    code, _, err = shell.run("deployments", "scale", "busy")
    assert (code, "--max-replicas" in err) == (2, True)
    assert shell.ask("deployments", "delete", "busy", "--yes") == "Deleted busy.\n"
