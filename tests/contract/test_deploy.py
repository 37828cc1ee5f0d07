"""What lies ready for those who have Docker names settings, commands and files that exist."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Any

import pytest
import yaml

from easyml_server.cli import app
from easyml_server.settings import Settings
from tests.servers import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "easyml"}
SETTINGS = {f"EASYML_{name.upper()}" for name in Settings.model_fields}


def commands() -> set[str]:
    return {name for name in app if not name.startswith("-")}


def test_the_image_sets_what_exists() -> None:
    assert set(re.findall(r"\b(EASYML_[A-Z_]+)=", DOCKERFILE)) <= SETTINGS
    words = re.findall(r'CMD \["(?:easyml-server", ")?([a-z]+)"', DOCKERFILE)
    assert words == ["probe", "serve"]
    assert set(words) <= commands()


def test_the_image_has_both_programs_and_leaves_its_root_alone() -> None:
    programs = {
        each.name for each in entry_points(group="console_scripts") if each.dist and each.dist.name == "easyml-server"
    }
    assert programs == {"easyml-server", "easyml-model-server"}
    entry = re.search(r'^ENTRYPOINT \["([a-z-]+)"\]$', DOCKERFILE, flags=re.M)
    assert entry is not None
    assert entry[1] in programs
    assert "--entrypoint easyml-model-server" in DOCKERFILE
    assert re.search(r"^ARG PYTHON_IMAGE=", DOCKERFILE, flags=re.M), "a base image is named by its digest through it"
    # What is imported is compiled already, and what is written goes to volumes.
    assert "UV_COMPILE_BYTECODE=1" in DOCKERFILE
    assert "EASYML_DATA_DIR=/data" in DOCKERFILE


def test_the_image_copies_what_exists() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, flags=re.M)]
    assert copied
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists()
        assert any(path == each or path.startswith(f"{each}/") for each in kept), f"{path} is ignored"


def test_the_image_does_not_run_as_root() -> None:
    uid = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, flags=re.M)
    assert uid is not None
    assert int(uid[1]) > 0
    assert f"--uid {uid[1]} " in DOCKERFILE
    assert COMPOSE["services"]["folders"]["entrypoint"][1] == f"{uid[1]}:{uid[2]}"


@pytest.mark.parametrize("name", sorted(set(OURS) - {"folders"}))
def test_a_service_sets_what_exists_and_is_hardened(name: str) -> None:
    service = OURS[name]
    assert set(service.get("environment", ())) <= SETTINGS
    if service.get("entrypoint") == ["dask"]:
        assert service["command"][0] in {each.name for each in entry_points(group="dask_cli")}
        assert "environment" not in service, "workers need no passwords"
    else:
        assert service.get("command", ["serve"])[0] in commands()
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert not any(port.count(":") < 2 or not port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_replicas_share_files_and_key_and_nothing_else() -> None:
    first, second = (set(COMPOSE["services"][name]["volumes"]) for name in ("server", "replica"))
    assert first & second == {"files:/files"}
    assert OURS["server"]["environment"] == OURS["replica"]["environment"]


def test_every_volume_and_every_service_waited_for_is_there() -> None:
    volumes = {each.split(":")[0] for service in COMPOSE["services"].values() for each in service.get("volumes", ())}
    assert volumes == set(COMPOSE["volumes"])
    waited = {name for service in COMPOSE["services"].values() for name in service.get("depends_on", ())}
    assert waited <= set(COMPOSE["services"])
