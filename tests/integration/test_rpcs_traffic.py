"""Two revisions side by side, as callers see them: promoted, shared by hand, taken back; no call fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from easyml.v1 import deployment_pb2
from easyml.v1 import deployment_service_pb2 as pb
from tests.integration.test_rpcs_deployments import Deployer, made_by, under_load
from tests.marks import answers, refuses
from tests.servers import Client, ServerProcess, deploying, eventually, refusal

BLUE_GREEN = deployment_pb2.ROLLOUT_STRATEGY_BLUE_GREEN
CANARY = deployment_pb2.ROLLOUT_STRATEGY_CANARY
STANDBY, ACTIVE = deployment_pb2.REVISION_STATE_STANDBY, deployment_pb2.REVISION_STATE_ACTIVE
WITHDRAWN = deployment_pb2.REVISION_STATE_WITHDRAWN


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its deployments end with it."""
    with deploying(tmp_path_factory.mktemp("traffic") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def deployer(server: ServerProcess) -> Iterator[Deployer]:
    with Client(server.address, server.key) as client:
        yield made_by(client)


@pytest.fixture
def deployed(deployer: Deployer) -> Iterator[deployment_pb2.Deployment]:
    """One that answers with the first version."""
    deployment = deployer.ready(deployer.create().id)
    yield deployment
    deployer.delete(deployment.id)


def with_steps(*steps: tuple[int, int]) -> deployment_pb2.DeploymentConfig:
    canary = deployment_pb2.Canary(
        steps=[deployment_pb2.CanaryStep(weight=weight, duration_seconds=seconds) for weight, seconds in steps]
    )
    return deployment_pb2.DeploymentConfig(strategy=CANARY, canary=canary)


def weights(deployment: deployment_pb2.Deployment) -> dict[int, int]:
    return {share.revision: share.weight for share in deployment.traffic}


def standing_by(
    deployer: Deployer, deployment_id: str, config: deployment_pb2.DeploymentConfig
) -> deployment_pb2.Deployment:
    """With the second version beside the first."""
    number = deployer.update(deployment_id, deployer.second, config=config).latest_revision
    return deployer.until(deployment_id, lambda now: number in weights(now))


def promote(deployer: Deployer, deployment_id: str, **changes: Any) -> deployment_pb2.Deployment:
    request = pb.PromoteDeploymentRequest(deployment_id=deployment_id, **changes)
    promoted: deployment_pb2.Deployment = deployer.client.deployments.PromoteDeployment(request).deployment
    return promoted


def share(deployer: Deployer, deployment_id: str, **changes: Any) -> pb.SetTrafficRequest:
    shares = [
        deployment_pb2.TrafficShare(revision=int(number.lstrip("r")), weight=weight)
        for number, weight in changes.items()
    ]
    return pb.SetTrafficRequest(deployment_id=deployment_id, traffic=shares)


def states(deployer: Deployer, deployment_id: str) -> list[deployment_pb2.RevisionState]:
    """Newest first."""
    request = pb.ListRevisionsRequest(deployment_id=deployment_id)
    return [each.state for each in deployer.client.deployments.ListRevisions(request).revisions]


@answers("DeploymentService/PromoteDeployment", "DeploymentService/SetTraffic")
def test_blue_green_waits_is_shared_by_hand_and_promoted_without_a_failed_call(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    with under_load(deployer, deployed.id) as load:
        waiting = standing_by(deployer, deployed.id, deployment_pb2.DeploymentConfig(strategy=BLUE_GREEN))
        assert (waiting.active_revision, weights(waiting)) == (1, {1: 100, 2: 0})
        assert not waiting.HasField("canary")
        assert states(deployer, deployed.id) == [STANDBY, ACTIVE]
        assert set(load.answered) == {deployer.first}

        shared = deployer.client.deployments.SetTraffic(share(deployer, deployed.id, r1=50, r2=50)).deployment
        assert weights(shared) == {1: 50, 2: 50}
        eventually(lambda: deployer.second in load.answered)
        deployer.client.deployments.SetTraffic(share(deployer, deployed.id, r1=100))
        # Three calls may have been under way.
        back = len(load.answered) + 3
        assert weights(deployer.get(deployed.id)) == {1: 100, 2: 0}
        eventually(lambda: len(load.answered) > back + 10)
        assert set(load.answered[back:]) == {deployer.first}

        promote(deployer, deployed.id)
        assert weights(deployer.ready(deployed.id)) == {2: 100}
    assert deployer.ask(deployed.id) == deployer.second
    request = pb.ListRevisionsRequest(deployment_id=deployed.id)
    newer, older = deployer.client.deployments.ListRevisions(request).revisions
    assert [change.weight for change in newer.traffic] == [50, 0, 100]
    assert [change.weight for change in older.traffic] == [100, 50, 100, 0]


def test_a_canary_goes_through_its_steps_by_time_and_by_hand_without_a_failed_call(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    with under_load(deployer, deployed.id) as load:
        first = standing_by(deployer, deployed.id, with_steps((20, 1), (40, 0), (60, 1)))
        assert weights(first) == {1: 80, 2: 20}
        assert (first.canary.step, first.canary.steps) == (1, 3)
        assert first.canary.HasField("end_time")
        second = deployer.until(deployed.id, lambda now: now.canary.step == 2)
        assert (weights(second), second.canary.HasField("end_time")) == ({1: 60, 2: 40}, False)
        eventually(lambda: deployer.second in load.answered)
        third = promote(deployer, deployed.id)
        assert (weights(third), third.canary.step) == ({1: 40, 2: 60}, 3)
        done = deployer.ready(deployed.id)
        assert (done.active_revision, weights(done), done.HasField("canary")) == (2, {2: 100}, False)
    assert deployer.ask(deployed.id) == deployer.second


def test_calls_are_shared_by_weight(deployer: Deployer, deployed: deployment_pb2.Deployment) -> None:
    standing_by(deployer, deployed.id, with_steps((25, 0)))
    answered = [deployer.ask(deployed.id) for _ in range(400)]
    # Nine standard deviations either way.
    assert 22 < answered.count(deployer.second) < 178


def test_a_canary_that_is_rolled_back_leaves_the_other_answering(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    with under_load(deployer, deployed.id):
        standing_by(deployer, deployed.id, with_steps((50, 0)))
        request = pb.RollbackDeploymentRequest(deployment_id=deployed.id)
        back = deployer.client.deployments.RollbackDeployment(request).deployment
        assert (back.latest_revision, back.active_revision, weights(back)) == (2, 1, {1: 100})
        assert back.config.strategy == deployment_pb2.ROLLOUT_STRATEGY_ROLLING
        settled = deployer.until(
            deployed.id,
            lambda now: now.state == deployment_pb2.DEPLOYMENT_STATE_READY and len(now.replicas) == 1,
        )
    assert {replica.revision for replica in settled.replicas} == {1}
    assert states(deployer, deployed.id) == [WITHDRAWN, ACTIVE]
    progressing = next(each for each in settled.conditions if each.type == deployment_pb2.CONDITION_TYPE_PROGRESSING)
    assert (progressing.status, progressing.reason) == (False, "RolledBack")
    assert deployer.update(deployed.id, deployer.second).latest_revision == 3
    assert deployer.ready(deployed.id).active_revision == 3


def test_what_answered_before_does_not_wait_when_it_is_rolled_back_to(
    deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    standing_by(deployer, deployed.id, deployment_pb2.DeploymentConfig(strategy=BLUE_GREEN))
    promote(deployer, deployed.id)
    deployer.ready(deployed.id)
    deployer.client.deployments.RollbackDeployment(pb.RollbackDeploymentRequest(deployment_id=deployed.id))
    assert deployer.ready(deployed.id).active_revision == 3
    assert deployer.ask(deployed.id) == deployer.first


def test_both_revisions_are_found_again_by_the_next_server(
    server: ServerProcess, deployer: Deployer, deployed: deployment_pb2.Deployment
) -> None:
    before = standing_by(deployer, deployed.id, with_steps((50, 0)))
    server.leave()
    server.start()
    with Client(server.address, server.key) as client:
        again = Deployer(client, deployer.project_id, deployer.first, deployer.second)
        after = again.until(deployed.id, lambda now: sum(bool(each.endpoint) for each in now.replicas) == 2)
        assert {each.id for each in after.replicas} == {each.id for each in before.replicas}
        assert (weights(after), after.canary) == (weights(before), before.canary)
        assert promote(again, deployed.id, full=True).latest_revision == 2
        assert again.ready(deployed.id).active_revision == 2


@refuses("DeploymentService/PromoteDeployment", "DeploymentService/SetTraffic")
def test_shares_that_cannot_be_are_refused(deployer: Deployer, deployed: deployment_pb2.Deployment) -> None:
    calls = deployer.client.deployments
    for call, request in (
        (calls.PromoteDeployment, pb.PromoteDeploymentRequest(deployment_id=deployed.id)),
        (calls.SetTraffic, share(deployer, deployed.id, r1=100)),
    ):
        alone = refusal(call, request)
        assert (alone.short, alone.metadata) == (("FAILED_PRECONDITION", "WRONG_STATE"), {"state": "active"})
        assert alone.message == "Revision 1 answers all calls already; there is nothing to share or to promote."
    standing_by(deployer, deployed.id, with_steps((50, 0)))
    before = deployer.get(deployed.id)
    for shares, said in (
        ({"r1": 90, "r2": 20}, "The weights add to 110; they must add to 100."),
        ({"r1": 90, "r3": 10}, "Revision 3 does not run; revisions 1 and 2 do."),
        ({"r1": 50, "r01": 50}, "Revision 1 has a share already."),
    ):
        refused = refusal(calls.SetTraffic, share(deployer, deployed.id, **shares))
        assert refused.short == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert refused.message == said
    stale = pb.PromoteDeploymentRequest(deployment_id=deployed.id, etag="another")
    assert refusal(calls.PromoteDeployment, stale).short == ("ABORTED", "STALE_ETAG")
    assert deployer.get(deployed.id) == before


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (deployment_pb2.DeploymentConfig(canary=deployment_pb2.Canary()), "config.canary"),
        (with_steps((20, 0), (20, 0)), "config.canary.steps[1].weight"),
        (with_steps((100, 0)), "config.canary.steps[0].weight"),
        (with_steps((0, 0)), "config.canary.steps[0].weight"),
        (with_steps(*[(number + 1, 0) for number in range(21)]), "config.canary.steps"),
        (with_steps((10, -1)), "config.canary.steps[0].duration_seconds"),
    ],
)
def test_a_canary_that_cannot_be_is_refused(
    deployer: Deployer, deployed: deployment_pb2.Deployment, config: deployment_pb2.DeploymentConfig, field: str
) -> None:
    request = pb.UpdateDeploymentRequest(deployment_id=deployed.id, config=config)
    refused = refusal(deployer.client.deployments.UpdateDeployment, request)
    assert (refused.code.name, refused.fields) == ("INVALID_ARGUMENT", [field])
