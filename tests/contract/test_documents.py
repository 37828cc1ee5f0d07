"""The shapes of documents, their validators and indexes are those of the layout that a start compares with."""

from __future__ import annotations

import hashlib
import json

import pytest

from easyml_server.repositories.documents.document import Document
from easyml_server.repositories.documents.models import KINDS, LAYOUT, MLflowMetadataDocument
from easyml_server.repositories.documents.schemas import INDEXES, validator_of

LAYOUTS = {1: "3a6bde0dade21960", 2: "a4f7ab0203454df7", 3: "294c73784057075e"}
"""A change gets the next number and a line here: `easyml-server migrate` makes it, and older servers do not start."""


def test_a_changed_layout_has_a_new_number() -> None:
    made = [
        *((kind.collection, kind.newest(), validator_of(kind)) for kind in KINDS),
        *((index.name, index.field, dict(index.options)) for index in INDEXES),
    ]
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    assert (max(LAYOUTS), LAYOUTS[LAYOUT]) == (LAYOUT, digest)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.collection)
def test_a_kind_has_a_collection_and_a_strict_shape(kind: type[Document]) -> None:
    assert [each.collection for each in KINDS].count(kind.collection) == 1
    body = validator_of(kind)["$jsonSchema"]["properties"]["body"]["anyOf"][1]
    assert body["additionalProperties"] is False
    assert set(body["required"]) == set(kind.model_fields)


def test_a_run_of_the_first_shape_was_recorded() -> None:
    body = {
        "id": "1a2b3c4d-0000-4000-8000-000000000000",
        "schema_version": 1,
        "tracking_uri": "sqlite:///mlflow.db",
        "mlflow_experiment_id": "1",
        "run_id": "run",
        "artifact_uri": "file:///artifacts",
        "model_uri": "",
        "create_time": "2026-01-02T03:04:05Z",
    }
    run = MLflowMetadataDocument.from_body(body).to_domain()
    assert (run.run_id, run.problem) == ("run", None)
