"""`easyml-server probe`, as health checks of containers run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import LOOPBACK, Authority
from tests.servers import ServerProcess, environment, serving


def probed(data: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "easyml_server", "probe", *arguments, "--data-dir", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment({}))
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("service", [(), ("liveness",), ("easyml.v1.TrainingService",)])
def test_a_server_that_serves_says_so(shared_server: ServerProcess, service: tuple[str, ...]) -> None:
    assert probed(shared_server.data, *service) == (0, "SERVING")


def test_a_service_that_is_none_is_not_found(shared_server: ServerProcess) -> None:
    assert probed(shared_server.data, "easyml.v1.TeaService") == (1, "NOT_FOUND")


def test_no_server_is_no_answer(tmp_path: Path) -> None:
    assert probed(tmp_path) == (1, "NOT_RUNNING")


@pytest.mark.slow
def test_a_server_that_was_killed_does_not_answer(tmp_path: Path) -> None:
    certificate, key = Authority("ours").issue("ml.example.org", *LOOPBACK).write(tmp_path / "tls")
    settings = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    with serving(tmp_path / "data", **settings) as server:
        assert probed(server.data) == (0, "SERVING")
        server.kill()
    assert probed(tmp_path / "data", "--seconds", "0.5") == (1, "DEADLINE_EXCEEDED")
