"""Documents kept outside the database: writes that wait to be applied there, and the server that takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

WHOLE_PROJECT = "*"
"""In place of a collection: all documents of the project whose id stands for the document's."""


@dataclass(frozen=True, slots=True)
class PendingDocument:
    """The newest write of one document that has not been applied yet; without a body it is a deletion.

    `revision` grows with every write of whatever document.
    """

    revision: int
    collection: str
    document_id: UUID
    project_id: UUID
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as the server has it."""

    project_id: UUID
    revision: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the writes that were sent.

    `done` are stored now, or had been. `overtaken` met something newer, whose revision stands beside them. All others
    were refused, which the log tells of; they are sent again.
    """

    done: Sequence[PendingDocument] = ()
    overtaken: Sequence[tuple[PendingDocument, int]] = ()


class PendingDocuments(Protocol):
    """Writes that were committed with their rows; part of a unit of work."""

    async def page(self, after: int) -> Sequence[PendingDocument]:
        """The oldest with a revision above `after`, as many as one likes to hold at once."""
        ...

    async def remove(self, applied: Sequence[PendingDocument]) -> None:
        """Forget these, but for those that were replaced by a later write meanwhile."""
        ...

    async def renew(self, pending: PendingDocument, above: int) -> None:
        """Give a write, if it is still the newest of its document, a new revision; it and all later are above this."""
        ...


class DocumentServer(Protocol):
    """A server for documents."""

    async def find_many(self, collection: str, document_ids: Sequence[UUID]) -> Mapping[UUID, StoredDocument]:
        """Those of these that are there. Raises Unavailable while the server is away, and within 2 seconds."""
        ...

    async def apply(self, pending: Sequence[PendingDocument]) -> Applied:
        """Store writes, each once however often it comes, none over a newer one. Raises Unavailable."""
        ...

    def availability(self) -> AsyncIterator[bool]:
        """Whether the server answers, now and whenever that changes."""
        ...
