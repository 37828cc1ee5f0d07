"""DVC pointers, which are documents alone: no row refers to them."""

from __future__ import annotations

from uuid import UUID

from easyml_server.domain.versioning import DvcPointer
from easyml_server.repositories.documents.models import DVCMetadataDocument
from easyml_server.repositories.documents.port import Documents


class DocumentVersionRepository:
    """Fulfils `ports.store.VersionRepository`."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def put(self, pointer: DvcPointer) -> None:
        """Insert or replace."""
        await self._documents.put(DVCMetadataDocument.of(pointer), pointer.project_id)

    async def find(self, version_id: UUID) -> DvcPointer | None:
        """The pointer of a version."""
        document = await self._documents.find(DVCMetadataDocument, version_id)
        return None if document is None else document.to_domain()

    async def delete(self, version_id: UUID) -> None:
        """The pointer of a version that was deleted."""
        await self._documents.delete(version_id)
