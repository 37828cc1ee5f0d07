"""What the operator of a server set for everything it has on a cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """Empty where the cluster decides.

    `keys` is the JWK Set of whoever signs tokens, `owner` the id of the key, and `arguments` what all model servers are
    told.
    """

    namespace: str
    image: str
    keys: str
    owner: str
    arguments: Sequence[str] = ()
    image_pull_policy: str = "IfNotPresent"
    image_pull_secret: str = ""
    service_account: str = ""
    store_secret: str = ""
    leaving_seconds: int = 3
    """Between a pod's leaving the endpoints and its being told to end: callers learn of it meanwhile."""


def read_keys(path: Path) -> tuple[str, str]:
    """The JWK Set in a file, and the id of its first key."""
    text = path.read_text()
    return text, str(json.loads(text)["keys"][0]["kid"])
