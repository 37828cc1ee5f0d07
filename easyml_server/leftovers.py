"""Files that a crash left without a row: they were received or published, but never acknowledged."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from easyml_server.files import Artifacts
from easyml_server.ports.artifacts import Key, UploadKey
from easyml_server.repositories.sql.store import SqlStore

MOST_AT_ONCE = 500

log = structlog.get_logger(__name__)


async def remove_left_behind(store: SqlStore, artifacts: Artifacts) -> None:
    """Remove what no row knows and nobody is at work on."""
    # The rest next time: each may be an open file while this lasts.
    suspects = (await without_row(store, await artifacts.suspects()))[:MOST_AT_ONCE]
    with artifacts.left_behind(suspects) as left:
        # Asked again: what was published when it was asked first may have been committed since.
        for key in await without_row(store, left):
            await artifacts.remove(key)
            log.info("orphan_removed", files=str(key))
    await artifacts.tidy()


async def without_row(store: SqlStore, keys: Sequence[Key]) -> Sequence[Key]:
    """Those that no row knows."""
    if not keys:
        return ()
    async with store.read() as work:
        known = await work.known_file_ids()
        continued = {UploadKey(each.user_id, each.id) for each in await work.datasets.unfinished_uploads()}
    return [
        key for key in keys if key not in continued and (isinstance(key, UploadKey) or str(key.version_id) not in known)
    ]
