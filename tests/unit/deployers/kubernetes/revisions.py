"""A revision to have on a cluster, and what an operator may have set."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

from easyml_server.deployers.kubernetes.target import Target
from easyml_server.domain.deployments import Probes
from easyml_server.ports.artifacts import StoredSource
from easyml_server.ports.deployer import ServedRevision
from easyml_server.ports.model_servers import ServedModel

DEPLOYMENT = UUID("aaaaaaaa-0000-4000-8000-000000000001")
REVISION = UUID("bbbbbbbb-0000-4000-8000-000000000002")
VERSION = UUID("cccccccc-0000-4000-8000-000000000003")
SOURCE = StoredSource("s3://models/files/p/models/v", "0" * 64)
TARGET = Target(
    namespace="models",
    image="registry.example/easyml:1",
    keys='{"keys": []}',
    owner="0123456789abcdef",
    arguments=["--x=1"],
)


def a_revision(name: str = "churn", **parts: Any) -> ServedRevision:
    names = (str(DEPLOYMENT), f"project/{name}", name)
    model = ServedModel(VERSION, lambda: nullcontext(Path("nowhere")))
    return ServedRevision(REVISION, DEPLOYMENT, names, 3, model, **{"replicas": 2, "probes": Probes(), **parts})
