"""Repeated requests: what makes starting something twice start it once."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request that may be repeated: its id, the method, and SHA-256 of everything else it says."""

    request_id: UUID
    method: str
    fingerprint: str
