"""A server of its own, started as people start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FLOWERS = {"setosa": (5.0, 3.4, 1.5, 0.2), "versicolor": (5.9, 2.8, 4.3, 1.3), "virginica": (6.6, 3.0, 5.6, 2.0)}


@dataclass
class Server:
    """`easyml-server serve` in a process of its own; it can be killed and started again at the same address."""

    folder: Path
    address: str = "127.0.0.1:0"
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What the shell of its owner has."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("EASYML_")}
        return {
            **own,
            "EASYML_DATA_DIR": str(self.folder / "data"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "EASYML_LOG_LEVEL": "warning",
            **self.settings,
        }

    @property
    def key(self) -> str:
        """The owner's key."""
        return (self.folder / "data" / "owner.key").read_text().strip()

    def start(self) -> None:
        """Until it says READY."""
        port = self.address.rsplit(":", 1)[1]
        command = [sys.executable, "-m", "easyml_server", "serve", "--port", port]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("READY "), line
        self.address = line.split()[1]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Until it is gone."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        self.process.wait(60)
        self.process.stdout.close()
        self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a file; each test makes a project of its own."""
    server = Server(tmp_path_factory.mktemp("server"), settings={"EASYML_OPEN_REGISTRATION": "true"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill."""
    server = Server(tmp_path)
    server.start()
    yield server
    if server.process:
        server.stop()


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small table: twenty flowers of each species, none like the other."""
    lines = ["sepal_length,sepal_width,petal_length,petal_width,species"]
    for species, sizes in FLOWERS.items():
        for number in range(20):
            shape = [size * (0.9 + 0.01 * ((number * (7 + 2 * place)) % 20)) for place, size in enumerate(sizes)]
            lines.append(",".join([*(f"{size:.3f}" for size in shape), species]))
    path = tmp_path_factory.mktemp("iris") / "iris.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
