"""A 500 MB CSV upload against `cp` plus pyarrow's conversion to Parquet. Budget: 1.3 times, 64 MB above idle.

The two take turns for a few rounds, because the machine is not the same from minute to minute.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet

from benchmarks.report import Figure, Measured, Say
from benchmarks.servers import MeasuredServer, serving
from easyml_client import EasyML
from easyml_client.resources.projects import Project

BYTES = int(os.environ.get("EASYML_BENCH_UPLOAD_BYTES", "500000000"))
BLOCK_ROWS = 100_000
ROUNDS = 3


def write_csv(path: Path) -> None:
    """Numbers and categories; the same block again and again, which no step of either side notices."""
    random = np.random.default_rng(0)
    columns = [random.normal(size=BLOCK_ROWS).round(4).astype(str) for _ in range(6)]
    columns.append(random.choice(["red", "green", "blue"], size=BLOCK_ROWS))
    columns.append(random.integers(0, 1000, size=BLOCK_ROWS).astype(str))
    block = "\n".join(",".join(row) for row in zip(*columns, strict=True)) + "\n"
    with path.open("w") as file:
        file.write("a,b,c,d,e,f,colour,count\n")
        while file.tell() < BYTES:
            file.write(block)


class Peak:
    """The largest resident memory of the server while something runs."""

    def __init__(self, server: MeasuredServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.idle = self.bytes = server.memory_bytes()

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.bytes = max(self.bytes, self._server.memory_bytes())


def measure(say: Say) -> Measured:
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch, "data"), min_free_disk_bytes="0") as server:
        source = Path(scratch, "table.csv")
        write_csv(source)
        with EasyML(server.target, token=server.token) as client:
            project = client.projects.create("bench")
            client.datasets.upload(project, os.fspath(small_csv(Path(scratch))), name="warm-up")
            say(f"uploading {BYTES / 1e6:.0f} MB")
            uploads, by_hand = [], []
            with Peak(server) as peak:
                for number in range(1, ROUNDS + 1):
                    uploads.append(upload(client, project, source, f"table-{number}", Path(scratch)))
                    by_hand.append(copy_and_convert(source, Path(scratch)))
                    say(f"round {number} of {ROUNDS}: {uploads[-1]:.1f} s; by hand {by_hand[-1]:.1f} s")
    ratio = statistics.median(ours / bare for ours, bare in zip(uploads, by_hand, strict=True))
    size = f"upload of a CSV of {BYTES / 1e6:.0f} MB"
    return Measured(
        [
            Figure(f"{size}, to `cp` and conversion by pyarrow", ratio, "x", at_most=1.3),
            Figure(f"{size}, memory of the server above idle", (peak.bytes - peak.idle) / 1e6, "MB", at_most=64),
        ],
        {
            "upload_seconds": statistics.median(uploads),
            "by_hand_seconds": statistics.median(by_hand),
            "rounds": ROUNDS,
        },
    )


def upload(client: EasyML, project: Project, source: Path, name: str, folder: Path) -> float:
    started = time.perf_counter()
    dataset = client.datasets.upload(project, source, name=name)
    took = time.perf_counter() - started
    # What the server does with it afterwards must not slow whoever is measured next.
    client.datasets.dvc(dataset, folder / name)
    return took


def small_csv(folder: Path) -> Path:
    path = folder / "small.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    return path


def copy_and_convert(source: Path, folder: Path) -> float:
    """What somebody would do by hand, made durable as the server does: `cp`, sync, and pyarrow's streaming reader."""
    started = time.perf_counter()
    copy = folder / "copy.csv"
    shutil.copyfile(source, copy)
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    with (
        pyarrow.csv.open_csv(copy) as reader,
        pyarrow.parquet.ParquetWriter(folder / "t.parquet", reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
    return time.perf_counter() - started
