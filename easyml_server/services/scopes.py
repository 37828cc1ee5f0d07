"""What a key of limited scope may not do although it needs no project."""

from __future__ import annotations

from easyml_server.domain.errors import NotAllowed, Reason
from easyml_server.domain.users import Caller, Scope


def require_full_scope(caller: Caller, doing: str) -> None:
    """Refuse a key that is limited to a project or a lower permission; `doing` ends the sentence "… cannot"."""
    if not caller.scope.covers(Scope()):
        raise NotAllowed(
            f"A key that is limited to a project or a lower permission cannot {doing}.",
            Reason.OUT_OF_SCOPE,
            metadata={"required": "owner"},
        )
