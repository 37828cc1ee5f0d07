"""Starting something twice starts it once."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from easyml_server.domain.requests import RequestKey
from easyml_server.domain.users import Caller
from easyml_server.ports.store import UnitOfWork

REMEMBERED = timedelta(hours=24)


async def find_first_result(work: UnitOfWork, caller: Caller, key: RequestKey | None, now: datetime) -> UUID | None:
    """What the same request made before; None if this is the first, or has no request id."""
    return None if key is None else await work.requests.find(caller, key, now - REMEMBERED)


async def remember(work: UnitOfWork, caller: Caller, key: RequestKey | None, resource_id: UUID, now: datetime) -> None:
    """Note what the request made, in the transaction that makes it."""
    if key is not None:
        await work.requests.add(caller, key, resource_id, now)
