"""The names that models get in MLflow: legal, unique among all projects, and as they are wherever that goes."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from easyml_server.domain.models import Model
from easyml_server.services.mirroring import registered_name
from tests.builders import TIME, a_project, a_user

PROJECT = UUID("1a2b3c4d-0000-4000-8000-000000000000")
MODEL = UUID("5e6f7a8b-0000-4000-8000-000000000000")


@pytest.mark.parametrize(
    ("project_name", "model_name", "expected"),
    [
        ("penguins", "species", "penguins-1a2b3c4d.species"),
        ("my penguins", "v2_final.x", "my-penguins-1a2b3c4d.v2_final.x"),
        ("a/b:c@d", "kind: of", "a-b-c-d-1a2b3c4d.kind-of-5e6f7a8b"),
        ("Größe", "型", "Größe-1a2b3c4d.型"),
        ("..", "..", "..-1a2b3c4d..."),
        ("p" * 255, "m" * 255, f"{'p' * 100}-1a2b3c4d.{'m' * 100}-5e6f7a8b"),
        ("it's", 'a "b"', "it-s-1a2b3c4d.a-b--5e6f7a8b"),
    ],
)
def test_a_name_is_legal_and_unique(project_name: str, model_name: str, expected: str) -> None:
    project = replace(a_project(a_user().id), id=PROJECT, name=project_name)
    assert registered_name(project, Model(MODEL, PROJECT, model_name, 1, TIME, TIME)) == expected
