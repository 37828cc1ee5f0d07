"""What belongs to the database: files, and what servers on it say to each other. For who looks and changes nothing."""

from __future__ import annotations

from pydantic import SecretStr

from easyml_server.data_folder import DataFolder, StartError
from easyml_server.database import database_as_it_is, listening_url
from easyml_server.domain.errors import Unavailable
from easyml_server.file_owners import FolderOwner, ObjectOwner, elsewhere, of_another
from easyml_server.files import FILES, files_root, object_store, object_url
from easyml_server.processes.locks import NoLocksError, check_locks
from easyml_server.settings import Settings

EXAMPLES = 3


async def look_at_files(settings: Settings, folder: DataFolder) -> str:
    """Whether every version of the database has its files; StartError says what is wrong."""
    async with database_as_it_is(settings, folder) as store:
        identity, bound = str(await store.identity()), await store.files_bound()
        async with store.read() as work:
            known = await work.known_file_ids()
    url = object_url(settings)
    if url is None:
        root = files_root(settings, folder.root)
        await _check_owner(FolderOwner(root), identity, bound=bound)
        place, there = str(root), {path.name for path in root.glob(f"{FILES}/*/*/*")}
    else:
        place, there = url, await _versions_in(url, identity, bound=bound)
    if lost := sorted(known - there):
        raise StartError(
            f"{len(lost)} of {len(known)} versions of datasets and models have no files in {place} (such as "
            f"{', '.join(lost[:EXAMPLES])}); restore them from a backup, or delete these versions."
        )
    return f"{place}; versions: {len(known)}, all there."


async def _versions_in(url: str, identity: str, *, bound: bool) -> set[str]:
    from easyml_server.artifacts.contents import CONTENTS

    with object_store(url) as objects:
        await _check_owner(ObjectOwner(objects), identity, bound=bound)
        try:
            found = await objects.list(FILES)
        except Unavailable as error:
            raise StartError(f"The files in {url} cannot be read: {error.__cause__}") from error
    return {each.name.split("/")[-2] for each in found if each.name.endswith(f"/{CONTENTS}")}


async def _check_owner(owner: FolderOwner | ObjectOwner, identity: str, *, bound: bool) -> None:
    written = await owner.read()
    if written is None and bound:
        raise elsewhere(owner, identity)
    if written not in (None, identity):
        raise of_another(owner)


async def look_at_signals(settings: Settings, database_url: SecretStr) -> str:
    """Whether servers on PostgreSQL hear each other; StartError says why not."""
    from easyml_server.repositories.sql.signals import CannotListenError, hear_oneself

    url, setting = listening_url(settings, database_url)
    try:
        await hear_oneself(url, database_url.get_secret_value())
    except CannotListenError as error:
        raise StartError(
            f"{setting}: {error} Name PostgreSQL itself, and the same database, in EASYML_DATABASE_LISTEN_URL."
        ) from error
    return f"what other servers say is heard ({setting})."


def look_at_locks(settings: Settings, folder: DataFolder) -> None:
    """StartError says why the shared folder will not do, if it is there."""
    root = files_root(settings, folder.root)
    if not root.exists():
        return
    try:
        check_locks(root)
    except NoLocksError as error:
        raise StartError(f"{error} Servers that share {root} need one that does, such as NFS 4.") from error
