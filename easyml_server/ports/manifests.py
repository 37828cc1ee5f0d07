"""What a deployer that has objects made for it would have made."""

from __future__ import annotations

from typing import Protocol

from easyml_server.ports.deployer import ServedRevision


class Manifests(Protocol):
    """The objects of revisions on a target, without making any."""

    async def render(self, revision: ServedRevision) -> str:
        """All of them as YAML. Raises as ArtifactStore does."""
        ...

    async def rehearse(self, revision: ServedRevision) -> None:
        """Ask the target whether it would take them; WrongState if not, Unavailable if it does not answer."""
        ...
