"""The command `easyml` against a real server, as people type it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.e2e.conftest import Server

pytestmark = pytest.mark.slow


class Shell:
    """Runs `easyml` with a project of its own."""

    def __init__(self, server: Server) -> None:
        self.project = f"cli-{uuid.uuid4()}"
        self.environment = {**server.environment, "EASYML_PROJECT": self.project}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "easyml_client.cli", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=self.environment)

    def run(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(given, timeout=120)
        return process.returncode, out, err

    def ask(self, *arguments: str, given: str = "") -> str:
        code, out, err = self.run(*arguments, given=given)
        assert code == 0, out + err
        return out

    def json(self, *arguments: str, given: str = "") -> object:
        return json.loads(self.ask(*arguments, "--json", given=given))


@pytest.fixture
def shell(server: Server) -> Shell:
    shell = Shell(server)
    shell.ask("projects", "create", shell.project)
    return shell


def test_what_is_refused_is_a_line_and_1(shell: Shell) -> None:
    code, out, err = shell.run("projects", "create", shell.project)
    assert (code, out) == (1, "")
    assert err == f"Project '{shell.project}' already exists; choose another name.\n"


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    shell = Shell(Server(tmp_path))
    code, _, err = shell.run("projects", "list")
    assert code == 1
    assert "easyml-server serve" in err


def test_the_main_job(shell: Shell, iris: Path, tmp_path: Path) -> None:
    assert "60 rows, 5 columns" in shell.ask("datasets", "upload", str(iris))
    assert len(shell.ask("datasets", "preview", "iris", "-n", "3").splitlines()) == 4
    lines = [line.split("\t") for line in shell.ask("datasets", "show", "iris").splitlines()]
    assert ["species", "string", "categorical", "feature", "100 %", "0", "3"] in lines
    assert ["species", "setosa 33 %, versicolor 33 %, virginica 33 %"] in lines
    (numbers,) = (line for line in lines if line[0] == "petal_length" and len(line) == 8)
    assert [float(each) for each in numbers[1:]] == sorted(map(float, numbers[1:6])) + list(map(float, numbers[6:]))
    shown = shell.json("datasets", "show", "iris")
    assert isinstance(shown, dict)
    held = {column["name"]: column for column in shown["current_version"]["statistics"]["columns"]}
    assert held["petal_length"]["numbers"]["minimum"] == float(numbers[1])
    shell.ask("datasets", "update", "iris", "--role", "species=target")
    plan = shell.json("train", "decision_tree", "-d", "iris", "--dry-run")
    assert isinstance(plan, dict)
    assert plan["spec"]["target"] == "species"

    lines = shell.ask("train", "decision_tree", "-d", "iris", "--cv", "3", "--seed", "1", "--watch").splitlines()
    assert "succeeded" in lines[-1]
    (experiment,) = shell.json("experiments", "list")  # type: ignore[misc]
    assert experiment["state"] == "succeeded"
    shown = shell.ask("experiments", "show", experiment["id"])
    assert "accuracy" in shown

    (model,) = shell.json("models", "list")  # type: ignore[misc]
    name = model["name"]
    lines = [line.split("\t") for line in shell.ask("models", "show", name).splitlines()]
    classes = lines[lines.index(["CLASS", "PRECISION", "RECALL", "F1", "TEST ROWS"]) + 1 :][:3]
    assert [each[0] for each in classes] == ["setosa", "versicolor", "virginica"]
    assert sum(int(each[4]) for each in classes) == 12
    version = shell.json("models", "show", name)
    assert isinstance(version, dict)
    assert [each["label"] for each in version["results"]["classification"]["curves"]] == [each[0] for each in classes]
    assert shell.ask("models", "alias", "set", f"{name}:1", "production") == f"{name}@production is version 1 now.\n"
    assert shell.ask("models", "export", name, str(tmp_path / "m.skops"), "--format", "skops").startswith("Saved")

    row = ("sepal_length=5", "sepal_width=3.4", "petal_length=1.5", "petal_width=0.2")
    assert shell.ask("predict", f"{name}@production", "--row", *row).splitlines()[1].startswith("setosa")
    answer = shell.json("predict", name, str(iris), "--ignore-extra")
    assert isinstance(answer, dict)
    assert len(answer["values"]) == 60
    code, _, err = shell.run("predict", name, given="sepal_length\n5\n")
    assert code == 1
    assert "sepal_width" in err

    code, _, err = shell.run("projects", "delete", shell.project, "--force")
    assert code == 2
    assert "--yes" in err
    deleted = shell.json("projects", "delete", shell.project, "--force", "--yes")
    assert isinstance(deleted, dict)
    assert (deleted["datasets"], deleted["experiments"], deleted["model_versions"]) == (1, 1, 1)


def test_ctrl_c_leaves_a_training_running(shell: Shell, iris: Path) -> None:
    shell.ask("datasets", "upload", str(iris))
    settings = ("--set", "n_estimators=10000", "--cv", "10")
    watching = shell.start("train", "random_forest", "-d", "iris", "-t", "species", *settings, "--watch")
    assert watching.stdout is not None
    while "iteration" not in watching.stdout.readline():
        pass
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 130
    experiment_id = err.strip().rsplit(" ", 1)[1]
    assert f"easyml experiments watch {experiment_id}" in err
    (experiment,) = shell.json("experiments", "list", "--state", "running")  # type: ignore[misc]
    assert experiment["id"] == experiment_id
    shell.ask("experiments", "cancel", experiment_id)
    code, out, _ = shell.run("experiments", "watch", experiment_id)
    assert code == 1
    assert out.splitlines()[-1].endswith("cancelled")


def test_people_sign_in_and_out(shell: Shell, server: Server) -> None:
    email, password = f"{uuid.uuid4()}@example.org", f"{uuid.uuid4()}\n"
    shell.ask("register", server.address, "--email", email, given=password)
    assert shell.json("whoami")["user"]["email"] == email  # type: ignore[index]
    shell.ask("logout")
    assert shell.json("whoami")["user"]["email"] != email  # type: ignore[index]
    shell.ask("login", server.address, "--email", email, given=password)
    key = shell.ask("token", "create", "ci", "--days", "1").strip()
    assert key.startswith("eml_")
    shell.ask("token", "revoke", "ci")
    shell.ask("logout", "--everywhere")
    code, _, err = shell.run("login", server.address, "--email", email, given="wrong\n")
    assert code == 1
    assert err.count("\n") == 1


def test_doctor_finds_nothing_wrong(shell: Shell) -> None:
    findings = shell.json("doctor")
    assert isinstance(findings, list)
    assert {finding["check"]: finding["level"] for finding in findings} == {
        "client": "ok",
        "address": "ok",
        "token": "ok",
        "server": "ok",
        "account": "ok",
    }
