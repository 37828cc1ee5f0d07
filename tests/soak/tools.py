"""What a client works with."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from easyml_client import EasyML
from tests.servers import Client
from tests.soak.journal import Journal
from tests.soak.shelf import Shelf


@dataclass(frozen=True)
class Tools:
    """Of one client; its connections reach all servers, the preferred one first."""

    name: str
    easyml: EasyML
    plain: Client
    shelf: Shelf
    foreign: Shelf
    """The project of somebody else."""
    journal: Journal
    folder: Path
    """Of files that are on their way."""
    draw: random.Random

    @classmethod
    def of(
        cls,
        name: str,
        addresses: tuple[str, ...],
        key: str,
        shelves: tuple[Shelf, Shelf],
        journal: Journal,
        folder: Path,
        seed: str,
    ) -> Tools:
        """`shelves` are of the client's own project and of somebody else's."""
        target = f"ipv4:{','.join(addresses)}"
        own, foreign = shelves
        return cls(
            name,
            EasyML(target, key),
            Client(target, key),
            own,
            foreign,
            journal,
            folder,
            random.Random(f"{seed}/{name}"),
        )
