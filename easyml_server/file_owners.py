"""Which database the files in a place belong to: written there as `database.id`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from easyml_server.data_folder import StartError
from easyml_server.domain.errors import Unavailable
from easyml_server.security.tokens import write_private

if TYPE_CHECKING:
    from easyml_server.artifacts.object_store import ObjectStore

NAME = "database.id"


class FolderOwner:
    """Of the files in a folder; who writes holds its lock."""

    def __init__(self, root: Path) -> None:
        self.place = str(root)
        self._path = root / NAME

    def written(self) -> bool:
        """Whether it says."""
        return self._path.exists()

    async def read(self) -> str | None:
        """None if it does not say."""
        return self._path.read_text().strip() if self._path.exists() else None

    async def write(self, identity: str) -> None:
        """From now on they are this database's."""
        write_private(self._path, f"{identity}\n".encode())

    async def take_back(self) -> None:
        """They are not."""
        self._path.unlink()


class ObjectOwner:
    """Of the files in an object store; of several who write the first one does."""

    def __init__(self, store: ObjectStore) -> None:
        self.place = store.url
        self._store = store

    async def read(self) -> str | None:
        """None if it does not say."""
        from easyml_server.artifacts.object_store import MissingError

        try:
            return (await self._store.get(NAME)).decode(errors="replace").strip()
        except MissingError:
            return None
        except Unavailable as error:
            raise StartError(f"The files in {self.place} cannot be read: {error.__cause__}") from error

    async def write(self, identity: str) -> None:
        """From now on they are this database's."""
        from easyml_server.artifacts.object_store import TakenError

        try:
            await self._store.put_new(NAME, f"{identity}\n".encode())
        except TakenError as error:
            if await self.read() != identity:
                raise StartError(
                    f"Another database has just begun to keep its files in {self.place}; start this server again."
                ) from error
        except Unavailable as error:
            raise StartError(f"The files in {self.place} cannot be written: {error.__cause__}") from error

    async def has(self, folder: str) -> bool:
        """Whether there is something in a folder."""
        try:
            return bool(await self._store.list(folder))
        except Unavailable as error:
            raise StartError(f"The files in {self.place} cannot be read: {error.__cause__}") from error

    async def take_back(self) -> None:
        """They are not."""
        await self._store.remove(NAME)


def elsewhere(owner: FolderOwner | ObjectOwner, identity: str) -> StartError:
    """What is said where the files of a database are not."""
    return StartError(
        f"The files of this database are not in {owner.place}: name the place where they are on all servers "
        f"(EASYML_ARTIFACT_URL, or --data-dir). Whoever moves them moves {NAME} too; if they are lost, write "
        f"{identity} into {owner.place}/{NAME}."
    )


def of_another(owner: FolderOwner | ObjectOwner) -> StartError:
    """What is said where another database has its files."""
    return StartError(
        f"The files in {owner.place} belong to another database; choose another folder (--data-dir, "
        "EASYML_ARTIFACT_URL), or the database they came with."
    )
