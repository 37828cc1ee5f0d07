"""What comes back over the pipe: one JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request ended; `error` is empty when it was done."""

    id: int
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""


ANSWER = TypeAdapter(Answer)
