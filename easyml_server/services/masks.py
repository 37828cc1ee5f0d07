"""Update masks: which fields of a request count."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from easyml_server.domain.errors import InvalidInput, Reason


def check_mask(paths: Sequence[str], allowed: Collection[str]) -> frozenset[str]:
    """The paths as a set; an empty mask or a path that cannot be updated is refused."""
    if not paths:
        raise InvalidInput.at(
            "update_mask",
            f"Name at least one field to update: {', '.join(sorted(allowed))}.",
            Reason.INVALID_UPDATE_MASK,
        )
    for path in paths:
        if path not in allowed:
            raise InvalidInput.at(
                "update_mask",
                f"{path!r} cannot be updated; {', '.join(sorted(allowed))} can.",
                Reason.INVALID_UPDATE_MASK,
                {"path": path},
            )
    return frozenset(paths)
