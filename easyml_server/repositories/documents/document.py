"""What all documents have in common: validated on the way in and out, and a version of their shape.

A shape that changes gets the next version and an upgrade: a function from the body of the one before. Bodies are
upgraded whenever they are read, and all of them by `easyml-server migrate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from easyml_server.domain.errors import Unavailable

RETRY_SECONDS = 5.0

Upgrade = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Document(BaseModel):
    """Base of all documents; `id` is the id of the row it belongs to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    collection: ClassVar[str]
    upgrades: ClassVar[tuple[Upgrade, ...]] = ()
    """The first makes version 2 of version 1, and so on."""

    id: UUID
    schema_version: int = 1

    @classmethod
    def newest(cls) -> int:
        """The version of the shape that is written."""
        return len(cls.upgrades) + 1

    def body(self) -> Mapping[str, Any]:
        """As it is stored."""
        return {**self.model_dump(mode="json"), "schema_version": self.newest()}

    @classmethod
    def upgraded(cls, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """A stored body in the newest shape; Unavailable if it is of a newer release."""
        version = int(body["schema_version"])
        if version > cls.newest():
            raise Unavailable(
                "A newer EasyML has written this document; ask a server of that version.",
                metadata={"part": "documents"},
                retry_after=RETRY_SECONDS,
            )
        for upgrade in cls.upgrades[version - 1 :]:
            version += 1
            body = {**upgrade(body), "schema_version": version}
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """The document of a stored body, whatever its shape."""
        return cls.model_validate(cls.upgraded(body))
