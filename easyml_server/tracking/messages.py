"""What the server asks the tracking process: one JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric at a step; milliseconds since the epoch."""

    key: str
    value: float
    step: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """Record one run."""

    id: int
    experiment_id: str
    experiment_name: str
    run_name: str
    status: str
    start_ms: int
    end_ms: int
    parameters: dict[str, str]
    metrics: list[Point]
    tags: dict[str, str]
    model_path: str | None
    type: Literal["record"] = "record"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Write a model as a zip of an MLflow model folder."""

    id: int
    model_path: str
    target: str
    type: Literal["export"] = "export"


Request = RecordRequest | ExportRequest

REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])
