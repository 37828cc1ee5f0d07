"""What objects on a cluster are called and labelled, so that they are found again by whoever comes after a restart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from easyml_server.ports.deployer import ServedRevision

MANAGER: Final = "easyml-server"
"""Our name as a field manager, and in the label that says who looks after an object."""
NAME: Final = "easyml-model-server"
DEPLOYMENT: Final = "easyml.io/deployment-id"
REVISION: Final = "easyml.io/revision-id"
NUMBER: Final = "app.kubernetes.io/version"
OWNER: Final = "easyml.io/signing-key"
"""Servers that share a database sign with one key; those of another have another, and leave our objects alone."""

LONGEST: Final = 46
"""A pod's name has 17 characters more, and is to be whole within 63."""
_OTHER: Final = re.compile(r"[^a-z0-9]+")


def revision_name(revision: ServedRevision) -> str:
    """The name of what belongs to one revision, for people and within any limit."""
    return _name(revision.names[-1], f"-r{revision.number}-{revision.id.hex[:8]}")


def deployment_name(revision: ServedRevision) -> str:
    """The name of the Service of its deployment, which stays from revision to revision."""
    return _name(revision.names[-1], f"-{revision.deployment_id.hex[:8]}")


def _name(text: str, ending: str) -> str:
    room = LONGEST - len("easyml-") - len(ending)
    readable = _OTHER.sub("-", text.lower()).strip("-")[:room].rstrip("-")
    return f"easyml-{readable}{ending}" if readable else f"easyml{ending}"


def labels_of(revision: ServedRevision, owner: str) -> dict[str, str]:
    """By the convention, and those that say whose an object is."""
    return {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/instance": deployment_name(revision),
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/part-of": "easyml",
        "app.kubernetes.io/managed-by": MANAGER,
        DEPLOYMENT: str(revision.deployment_id),
        REVISION: str(revision.id),
        NUMBER: str(revision.number),
        OWNER: owner,
    }


def selector_of(owner: str) -> str:
    """Of everything that servers with this signing key have on a cluster."""
    return f"app.kubernetes.io/managed-by={MANAGER},{OWNER}={owner}"


def id_in(labels: Mapping[str, str], label: str) -> UUID | None:
    """What a label says; None if it names nothing of ours."""
    try:
        return UUID(labels.get(label, ""))
    except ValueError:
        return None
