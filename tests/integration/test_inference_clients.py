"""Clients of Triton and KServe, as they are published, learn from a model server and the main port what we say too."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from easyml.v1 import prediction_service_pb2 as pb
from easyml.v1 import prediction_service_pb2_grpc as predictions
from easyml_server.security.tokens import Ed25519Signer
from tests.builders import a_project_of, upload
from tests.integration.test_rpcs_deployments import Deployer
from tests.integration.test_rpcs_models import a_version
from tests.model_servers import model_server
from tests.servers import CACHE, Client, deploying
from tests.unit.ml.training_jobs import FEATURES, a_job, a_mixed_table, succeed
from tests.unit.serving.requests import VERSION, a_row, rows

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "inference_clients"
NAME = "levels"
SECONDS = 120


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = a_job(tmp_path_factory.mktemp("trained"), a_mixed_table(), target="level", features=FEATURES)
    succeed(job)
    return Path(job.output_path)


@dataclass(frozen=True)
class Asked:
    """A server that checks tokens, the model that is asked there, and all that its index lists."""

    address: str
    token: str
    name: str
    index: list[str]
    server: str
    target: dict[str, str]


@pytest.fixture(scope="module")
def alone(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A model server."""
    signer = Ed25519Signer(tmp_path_factory.mktemp("keys"))
    token = signer.sign_identity(uuid4(), VERSION, datetime.now(UTC))
    with model_server(
        f"--model={VERSION}={trained}",
        f"--name={NAME}={VERSION}",
        f"--jwks={signer.jwks_path}",
        f"--audience={VERSION}",
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        target = {"model_version_id": VERSION}
        yield Asked(address, token, NAME, [VERSION, NAME], "easyml-model-server", target)
        process.terminate()


@pytest.fixture(scope="module")
def main_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """A server with a deployment of a model of the same table."""
    table = a_mixed_table()
    values = {name: ["" if value is None else _cell(value) for value in column] for name, (_, column) in table.items()}
    lines = [",".join(values), *(",".join(row) for row in zip(*values.values(), strict=True))]
    with (
        deploying(tmp_path_factory.mktemp("main_port") / "data") as server,
        Client(server.address, server.key) as client,
    ):
        project_id = a_project_of(client)
        dataset_id = upload(client, project_id, ("\n".join(lines) + "\n").encode()).id
        version = a_version(client, project_id, dataset_id, target="level", features=FEATURES)
        deployer = Deployer(client, project_id, version.id, version.id)
        deployment = deployer.ready(deployer.create().id)
        names = [deployment.id, f"{project_id}/{deployment.name}"]
        yield Asked(server.address, server.key, deployment.id, names, "easyml", {"deployment_id": deployment.id})


def _cell(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


@pytest.fixture(scope="module", params=["alone", "main_port"])
def server(request: pytest.FixtureRequest) -> Asked:
    """Both answer alike."""
    found: Asked = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def expected(server: Asked) -> dict[str, Any]:
    """What PredictionService says of the same rows."""
    request = rows(a_row(size=1.5, age=42, city="Rome"), a_row(size=2.5, age=43, city="Łódź", member=False))
    request.MergeFrom(pb.PredictRequest(**server.target))
    with grpc.insecure_channel(server.address) as channel:
        answer = predictions.PredictionServiceStub(channel).Predict(
            request, metadata=(("authorization", f"Bearer {server.token}"),)
        )
    assert isinstance(answer, pb.PredictResponse)
    return {
        "level": list(answer.predictions.strings.values),
        "probabilities": [list(row) for row in zip(*(each.values for each in answer.probabilities), strict=True)],
    }


def asked(client: str, cached: str, server: Asked) -> dict[str, Any]:
    """What a client's script says."""
    python = os.environ.get(f"{client.upper()}_PYTHON", str(CACHE / cached / "bin" / "python"))
    if not Path(python).exists():
        missing = f"{python} is missing; `make inference-clients` installs it."
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    script = {"triton": "ask_with_tritonclient.py", "kserve": "ask_with_kserve.py"}[client]
    run = subprocess.run(
        [python, str(SCRIPTS / script), server.address, server.name, server.token],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said: dict[str, Any] = json.loads(run.stdout)
    return said


def agrees(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    same = all(
        given == pytest.approx(known, abs=1e-6)
        for given, known in zip(answer["probabilities"], expected["probabilities"], strict=True)
    )
    return same and answer["level"] == expected["level"]


def test_triton_s_client(server: Asked, expected: dict[str, Any]) -> None:
    said = asked("triton", "tritonclient-2.73.0", server)
    assert (said["live"], said["ready"], said["model_ready"], said["other_ready"]) == (True, True, True, False)
    assert said["server"] == server.server
    assert said["inputs"] == {"size": "FP64", "age": "INT64", "city": "BYTES", "member": "BOOL", "since": "BYTES"}
    assert said["outputs"] == ["level", "level_probabilities"]
    assert said["index"] == server.index
    assert said["chosen"] == ["level"]
    assert agrees(said["answer"], expected)
    assert said["answer"]["id"] == "7"
    code, message = said["refused"]
    assert code == "StatusCode.INVALID_ARGUMENT"
    assert "'age'" in message
    first, refused, last = said["stream"]
    assert [first["id"], last["id"]] == ["a", "c"]
    assert agrees(first, expected)
    assert agrees(last, expected)
    assert "'age'" in refused


def test_kserve_s_client(server: Asked, expected: dict[str, Any]) -> None:
    said = asked("kserve", "kserve-0.21.0", server)
    assert (said["live"], said["ready"], said["model_ready"]) == (True, True, True)
    assert agrees(said["answer"], expected)
    assert said["answer"]["id"] == "7"
    code, message = said["refused"]
    assert code == "INVALID_ARGUMENT"
    assert "'age'" in message
