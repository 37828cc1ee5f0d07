"""Replicas that follow the calls, as people have them: from Python, from asyncio, and from the shell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from easyml_client import AsyncEasyML, EasyML, InvalidInput
from easyml_client.resources.deployments import Deployment
from tests.e2e.conftest import Server
from tests.e2e.test_cli import Shell
from tests.e2e.test_deployments import CELLS, ROW
from tests.servers import ServerProcess, deploying

pytestmark = pytest.mark.slow

PROJECT = "flowers"
QUICKLY_IDLE = {"min_replicas": 0, "max_replicas": 2, "cooldown_seconds": 1}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, iris: Path) -> Iterator[ServerProcess]:
    """A server with one model."""
    with deploying(tmp_path_factory.mktemp("scaling") / "data") as process:
        with EasyML(process.address, process.key) as client:
            client.projects.create(PROJECT)
            dataset = client.datasets.upload(PROJECT, iris)
            client.trainings.start(
                PROJECT, dataset=dataset, target="species", algorithm="decision_tree", model_name="iris"
            ).result()
        yield process


@pytest.fixture
def client(process: ServerProcess) -> Iterator[EasyML]:
    with EasyML(process.address, process.key) as client:
        yield client


@pytest.fixture
def shell(process: ServerProcess) -> Shell:
    shell = Shell(Server(process.data))
    shell.project = PROJECT
    shell.environment |= {"EASYML_PROJECT": PROJECT, "EASYML_TARGET": process.address, "EASYML_TOKEN": process.key}
    return shell


def until(client: EasyML, deployment: Deployment, holds: Callable[[Deployment], bool]) -> Deployment:
    return next(now for now in client.deployments.watch(deployment) if holds(now))


def is_idle(deployment: Deployment) -> bool:
    return deployment.idle and not deployment.replicas


def test_an_idle_deployment_answers_the_first_call_and_is_idle_again(client: EasyML) -> None:
    made = client.deployments.create(PROJECT, "idle", "iris", scaling=QUICKLY_IDLE).deployment
    assert made.config is not None
    assert made.config.scaling is not None
    assert (made.config.scaling.min_replicas, made.config.scaling.target_requests_in_flight) == (0, 8)
    for _ in range(2):
        idle = until(client, made, is_idle)
        assert (idle.state, idle.wanted_replicas, idle.arrived) == ("ready", 0, True)
        assert client.predictions.predict(idle, ROW).values == ["setosa"]
    client.deployments.delete(made)


def test_what_is_not_said_of_a_scaling_stays(client: EasyML) -> None:
    made = client.deployments.create(PROJECT, "bounds", "iris", scaling=QUICKLY_IDLE).deployment
    wider = client.deployments.scale(made, scaling={"max_replicas": 5}).config
    assert wider is not None
    assert wider.scaling is not None
    assert wider.scaling.to_dict() | QUICKLY_IDLE | {"max_replicas": 5} == wider.scaling.to_dict()
    planned = client.deployments.update(made, scaling={"min_replicas": 1}, validate_only=True).deployment.config
    assert planned is not None
    assert planned.scaling is not None
    assert (planned.scaling.min_replicas, planned.scaling.max_replicas) == (1, 5)
    fixed = client.deployments.update(made, replicas=2, validate_only=True).deployment
    assert (fixed.wanted_replicas, fixed.config and fixed.config.scaling and fixed.config.scaling.max_replicas) == (
        2,
        None,
    )
    with pytest.raises(InvalidInput, match="leave one of the two out"):
        client.deployments.update(made, replicas=2, scaling={"max_replicas": 3})
    with pytest.raises(InvalidInput, match="There is no scaling setting 'maximum'; there are replicas, min_replicas"):
        client.deployments.scale(made, scaling={"maximum": 3})
    problems = client.deployments.validate_config(PROJECT, scaling={"min_replicas": 3, "max_replicas": 2}).problems
    assert [each.field for each in problems] == ["config.scaling.min_replicas", "config.scaling.max_replicas"]
    assert client.deployments.scale(made, 1).wanted_replicas == 1
    client.deployments.delete(made)


async def test_an_idle_deployment_from_asyncio(process: ServerProcess) -> None:
    async with AsyncEasyML(process.address, process.key) as client:
        rollout = await client.deployments.create(PROJECT, "async", "iris", scaling=QUICKLY_IDLE)
        async for now in rollout.watch():
            if is_idle(now):
                break
        assert (await client.predictions.predict(rollout.deployment, ROW)).values == ["setosa"]
        scaled = await client.deployments.scale(rollout.deployment, scaling={"min_replicas": 1})
        assert scaled.wanted_replicas == 1
        await client.deployments.delete(scaled)


def test_a_scaling_from_the_shell(shell: Shell, client: EasyML) -> None:
    bounds = ("--min-replicas", "0", "--max-replicas", "2", "--target-in-flight", "4", "--cooldown-seconds", "1")
    assert "ready, 1 of 1 replicas" in shell.ask("deploy", "iris", "--name", "busy", *bounds).splitlines()[-1]
    found = until(client, client.deployments.get("busy", project=PROJECT), is_idle)
    shown = shell.ask("deployments", "show", "busy")
    assert "0 to 2 replicas for 4 calls in flight each, fewer after 1 s" in shown
    assert "No replica runs while nobody calls; the next call starts one, and waits." in shown
    assert shell.ask("predict", "--deployment", "busy", "--row", *CELLS).splitlines()[1].startswith("setosa")
    until(client, found, is_idle)
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
