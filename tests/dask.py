"""A Dask cluster for the tests: a scheduler and workers in processes of their own, from this environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from tests.mongodb import SHIM
from tests.servers import eventually, free_port

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass
class DaskProcess:
    """A scheduler or a worker; what it says goes to a file."""

    command: list[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> DaskProcess:
        """Returns at once."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", SHIM, str(os.getpid()), sys.executable, *self.command],
                stdout=log,
                stderr=log,
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith(("EASYML_", "DASK_"))},
                    **self.environment,
                },
                cwd=self.log.parent,
                # Ctrl-C is told to this program alone, which stops them in their order.
                start_new_session=True,
            )
        return self

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process, which must be there."""
        assert self.process is not None
        return self.process

    def kill(self) -> None:
        """SIGKILL; returns when it and what it started are gone."""
        family = psutil.Process(self.running.pid).children(recursive=True)
        self.running.kill()
        self.running.wait()
        self._end(family)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it does not hear."""
        if self.running.poll() is not None:
            return
        family = psutil.Process(self.running.pid).children(recursive=True)
        self.running.terminate()
        try:
            self.running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()
        self._end(family)

    def ended(self) -> int:
        """The exit code of one that ends by itself."""
        return self.running.wait(STOP_SECONDS)

    @staticmethod
    def _end(family: list[psutil.Process]) -> None:
        _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
        assert not left, f"processes stayed behind: {left}"


class DaskCluster:
    """A scheduler at a fixed port, which can be started again, and workers."""

    def __init__(self, folder: Path, tls: Mapping[str, str] | None = None) -> None:
        """With `tls`, variables of Dask's configuration, all of them speak TLS only."""
        self._folder = folder
        self._tls = tls
        self._workers: list[DaskProcess] = []
        self.port = free_port()
        self.scheduler = self._scheduler()

    @property
    def address(self) -> str:
        """As settings name it."""
        return f"{'tcp' if self._tls is None else 'tls'}://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What all of them said."""
        return self._folder / "dask.log"

    def start_scheduler(self) -> None:
        """Returns when it answers, or begins to."""
        ready = self._folder / f"scheduler-{self.port}.json"
        ready.unlink(missing_ok=True)
        self.scheduler = self._scheduler().start()
        eventually(ready.exists, START_SECONDS)

    def add_worker(self, *options: str, threads: int = 1, nanny: bool = False, **environment: str) -> DaskProcess:
        """Returns at once, the scheduler tells when it is there. With a nanny the process is the nanny's."""
        where = [self.address, "--host", "127.0.0.1", "--local-directory", str(self._folder / "scratch")]
        size = ["--nthreads", str(threads), "--memory-limit", "0"]
        kind = ["--nanny" if nanny else "--no-nanny", "--no-dashboard"]
        command = ["-m", "distributed.cli.dask_worker", *where, *size, *kind, *options]
        worker = DaskProcess(command, self.log, {**(self._tls or {}), **environment}).start()
        self._workers.append(worker)
        return worker

    def remove_workers(self) -> None:
        """Stop all there are."""
        while self._workers:
            self._workers.pop().stop()

    def _scheduler(self) -> DaskProcess:
        protocol = self.address.partition(":")[0]
        where = ["--protocol", protocol, "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        told = ["--scheduler-file", str(self._folder / f"scheduler-{self.port}.json")]
        return DaskProcess(["-m", "distributed.cli.dask_scheduler", *where, *told], self.log, self._tls or {})


@contextmanager
def dask_cluster(folder: Path, tls: Mapping[str, str] | None = None) -> Iterator[DaskCluster]:
    """A cluster for a while, without workers at first; nothing of it stays behind."""
    folder.mkdir(exist_ok=True)
    cluster = DaskCluster(folder, tls)
    cluster.start_scheduler()
    try:
        yield cluster
    finally:
        cluster.remove_workers()
        cluster.scheduler.stop()
