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


@dataclass(frozen=True, slots=True)
class VersionToMirror:
    """A version of a model; `run_id` is None where there is no run of it, and it `waits` if there will be one."""

    id: str
    number: int
    description: str
    run_id: str | None
    waits: bool


@dataclass(frozen=True, slots=True)
class MirrorRequest:
    """Bring a registered model to what a model is; `aliases` are of version ids, and `name` is for a new one."""

    id: int
    model_id: str
    name: str
    tags: dict[str, str]
    versions: list[VersionToMirror]
    aliases: dict[str, str]
    type: Literal["mirror"] = "mirror"


@dataclass(frozen=True, slots=True)
class LookRequest:
    """Ask whether MLflow answers."""

    id: int
    type: Literal["look"] = "look"


Request = RecordRequest | ExportRequest | MirrorRequest | LookRequest

REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])
