"""One meaning, three places: an enum of the contract, of the domain, and what the database lets into its column."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from easyml.v1 import algorithm_pb2, dataset_pb2, deployment_pb2, experiment_pb2, permission_pb2, project_pb2
from easyml_server.domain import datasets, deployments, experiments, projects, users
from easyml_server.repositories.sql.base import Base
from easyml_server.transport.converters import enums

CODECS = {name: each for name, each in vars(enums).items() if isinstance(each, enums.EnumCodec)}
IN_DATABASE: dict[str, tuple[type[Enum], Any]] = {
    "dataset_versions.format": (datasets.FileFormat, dataset_pb2.FileFormat),
    "uploads.state": (datasets.UploadState, dataset_pb2.UploadState),
    "ml_experiments.state": (experiments.TrainingState, experiment_pb2.TrainingState),
    "projects.visibility": (projects.Visibility, project_pb2.ProjectVisibility),
    "project_members.role": (projects.Role, project_pb2.Role),
    "uploads.format": (datasets.FileFormat, dataset_pb2.FileFormat),
    "model_versions.primary_metric": (experiments.Metric, algorithm_pb2.Metric),
    "model_deployments.state": (deployments.DeploymentState, deployment_pb2.DeploymentState),
    "deployment_revisions.state": (deployments.RevisionState, deployment_pb2.RevisionState),
    "api_keys.scope_permission": (users.Permission, permission_pb2.Permission),
}

UNCHECKED = {"outbox.kind"}
"""It is no word of the contract."""


def names_of(contract: Any) -> set[str]:
    """The names of a contract's enum without their prefix, but the zero."""
    zero = contract.DESCRIPTOR.values_by_number[0].name
    prefix = zero.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix) for value in contract.DESCRIPTOR.values if value.number}


def allowed_values(database: Path) -> dict[str, set[str]]:
    """What the check constraints of the migrated database let into each column."""
    found = {}
    with closing(sqlite3.connect(database)) as connection:
        for table, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
            for column, values in re.findall(r"CHECK \((\w+) IN \(([^)]*)\)\)", sql or ""):
                found[f"{table}.{column}"] = {value.strip(" '") for value in values.split(",")}
    return found


@pytest.mark.parametrize("name", CODECS)
def test_the_domain_says_what_the_contract_says(name: str) -> None:
    members = list(CODECS[name]._to_number)
    for member in members:
        # Values are what is stored and written into manifests: the name, in small letters.
        assert member.value == member.name.lower() or isinstance(member.value, int)


@pytest.mark.parametrize("column", IN_DATABASE)
def test_the_database_lets_in_what_the_contract_names(migrated_database: Path, column: str) -> None:
    domain, contract = IN_DATABASE[column]
    allowed = allowed_values(migrated_database)[column]
    assert allowed == {member.name.lower() for member in domain}
    assert {value.upper() for value in allowed} == names_of(contract)


def test_every_check_of_the_database_is_compared(migrated_database: Path) -> None:
    assert set(allowed_values(migrated_database)) == set(IN_DATABASE)


def test_no_state_or_kind_is_a_column_that_takes_any_text() -> None:
    words = re.compile(r"(^|_)(state|kind|role|format|visibility|task|stage|metric|permission)$")
    columns = {f"{table.name}.{each.name}" for table in Base.metadata.tables.values() for each in table.columns}
    assert {column for column in columns if words.search(column.partition(".")[2])} == {*IN_DATABASE, *UNCHECKED}
