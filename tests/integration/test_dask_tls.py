"""Trainings on a Dask cluster that speaks TLS only, with certificates as Dask's own configuration names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import a_project_of, upload
from tests.certificates import Authority, Pair
from tests.dask import DaskCluster, dask_cluster
from tests.integration.documents import NOT_SERVING, SERVING, followed, health_of, started
from tests.integration.test_belongings import told
from tests.servers import Client, eventually, log_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(170)]

PREFIX = "DASK_DISTRIBUTED__COMM__TLS__"
ROLES = ("SCHEDULER", "WORKER", "CLIENT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def cluster(folder: Path, authority: Authority) -> Iterator[DaskCluster]:
    variables = named(folder, "cluster", authority, authority.issue("127.0.0.1"))
    with dask_cluster(folder / "dask", variables) as cluster:
        cluster.add_worker()
        yield cluster


def named(folder: Path, name: str, authority: Authority, pair: Pair) -> dict[str, str]:
    """The variables of Dask's configuration, with files of that name."""
    certificate, key = pair.write(folder, name)
    files = {f"{role}__{what}": path for role in ROLES for what, path in (("CERT", certificate), ("KEY", key))}
    files["CA_FILE"] = authority.write(folder / f"{name}-ca.pem")
    return {f"{PREFIX}{what}": str(path) for what, path in files.items()}


def configure(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        patch.setenv(name, value)


def test_a_training_runs_over_tls(
    cluster: DaskCluster, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, named(tmp_path, "server", authority, authority.issue("server")))
    assert cluster.address.startswith("tls://")
    settings = {"DASK_ADDRESS": cluster.address, "ARTIFACT_URL": (tmp_path / "files").as_uri()}
    with serving(tmp_path / "data", **settings) as server, Client(server.address, server.key) as client:
        project_id = a_project_of(client)
        assert followed(client, started(client, project_id, upload(client, project_id).id))
        assert health_of(client, "trainings") == SERVING
        found = told(tmp_path / "data", **settings)["dask"]
        assert found["ok"], found
        assert f"{cluster.address}; workers: 1" in found["sentence"]


@pytest.mark.parametrize("wrong", ["authority", "certificate"])
def test_certificates_of_others_are_one_line(
    cluster: DaskCluster, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    other = Authority("other")
    trusted, issuer = (other, authority) if wrong == "authority" else (authority, other)
    configure(monkeypatch, named(tmp_path, "server", trusted, issuer.issue("server")))
    words = {
        "authority": f"its certificate is not to be trusted by the authority in {PREFIX}CA_FILE: self-signed",
        "certificate": f"does it trust the certificate in {PREFIX}CLIENT__CERT?",
    }[wrong]
    settings = {"DASK_ADDRESS": cluster.address, "ARTIFACT_URL": (tmp_path / "files").as_uri()}
    with serving(tmp_path / "data", **settings) as server, Client(server.address, server.key) as client:
        # Trainings wait for it, as for one that is away.
        eventually(lambda: health_of(client, "trainings") == NOT_SERVING)
        said = eventually(
            lambda: [line for line in log_of(tmp_path / "data").read_text().splitlines() if words in line]
        )
        assert "trainings wait for it" in said[0]
        found = told(tmp_path / "data", **settings)["dask"]
    assert not found["ok"]
    assert words in found["sentence"]
    assert "\n" not in found["sentence"]
