"""The limits of the main server reach the model servers."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from easyml_server.deployers.limits import ModelServerLimits
from easyml_server.deploying import model_server_limits
from easyml_server.serving.__main__ import app
from easyml_server.settings import Settings


def test_model_servers_keep_to_the_settings_of_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EASYML_CONFIG", str(tmp_path / "none.toml"))
    changed = {field.name: getattr(Settings(), field.name) + 1 for field in fields(ModelServerLimits)}
    limits = model_server_limits(Settings.model_validate(changed))
    assert asdict(limits) == changed
    _command, understood, _ignored = app.parse_args([*limits.arguments(), "--model=x=y"])
    assert {name: understood.arguments[name] for name in changed} == changed
