"""What the server asks the versioning process: one JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter


@dataclass(frozen=True, slots=True)
class Repository:
    """The DVC repository of a project: its folder, its cache, and the remote that versions are pulled from.

    Where it is not `whole`, other servers have pointers too, and nobody here knows what in the remote nobody needs.
    """

    folder: str
    cache: str
    remote_name: str
    remote_url: str
    whole: bool


@dataclass(frozen=True, slots=True)
class AddRequest:
    """Add the files of a folder as version `number`; `place` is where its pointer lies in the repository."""

    id: int
    repository: Repository
    place: str
    number: int
    files: str
    type: Literal["add"] = "add"


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Bring an added version to the remote."""

    id: int
    repository: Repository
    place: str
    type: Literal["push"] = "push"


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """Remove a version, and what no other needs."""

    id: int
    repository: Repository
    place: str
    type: Literal["forget"] = "forget"


@dataclass(frozen=True, slots=True)
class ForgetProjectRequest:
    """Remove the repository of a project, and what it has in the remote."""

    id: int
    repository: Repository
    type: Literal["forget_project"] = "forget_project"


Request = AddRequest | PushRequest | ForgetRequest | ForgetProjectRequest

REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])
