"""Worker processes: what they see, and that none is left behind, whatever dies."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easyml_server.domain.datasets import (
    ColumnKind,
    ColumnSchema,
    Conversion,
    FileFormat,
    ReadOptions,
    StorageType,
    TableLimits,
    TableSchema,
)
from easyml_server.domain.errors import InvalidInput, Reason, Unavailable
from easyml_server.domain.training import TrainingSucceeded
from easyml_server.processes.resources import usage_by_proc, usage_by_ps
from easyml_server.trainers.converter import ConverterLimits, ProcessTableReader, start_table_reader
from easyml_server.trainers.local import LocalTrainer, start_local_trainer
from easyml_server.trainers.processes import ProcessLimits, ProcessPool, start_pool, worker_environment
from tests.integration.jobs import a_job
from tests.integration.worker_entries import HERE

SECRET = "EASYML_CANARY"


@pytest.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProcessPool]:
    monkeypatch.setenv(SECRET, "do not pass on")
    async with start_pool([HERE], worker_environment(threads=1)) as pool:
        yield pool


async def surroundings(pool: ProcessPool, folder: Path) -> dict[str, object]:
    limits = ProcessLimits(address_space_bytes=1 << 30)
    worker = await pool.start(f"{HERE}:tell_surroundings", folder=str(folder), limits=limits)
    await worker.send(b"go")
    answer = await worker.receive()
    assert await worker.wait() == 0
    await worker.close()
    assert answer is not None
    return dict(json.loads(answer))


async def test_workers_see_nothing_of_the_server(pool: ProcessPool, tmp_path: Path) -> None:
    found = await surroundings(pool, tmp_path)
    modules = {name.partition(".")[0] for name in found["modules"]}  # type: ignore[attr-defined]
    assert not modules & {"grpc", "sqlalchemy", "motor", "pytest", "structlog"}
    assert SECRET not in found["environment"]  # type: ignore[operator]
    assert SECRET not in found["initial"]  # type: ignore[operator]
    assert found["environment"]["OMP_NUM_THREADS"] == "1"  # type: ignore[index]


async def test_workers_are_set_up_as_asked(pool: ProcessPool, tmp_path: Path) -> None:
    found = await surroundings(pool, tmp_path)
    assert found["folder"] == str(tmp_path)
    assert found["interrupt_ignored"]
    assert found["threads"] == 1
    assert (found["address_space"], found["core"]) == (1 << 30, 0)


async def test_an_unknown_entry_ends_with_an_exit_code(pool: ProcessPool) -> None:
    worker = await pool.start("easyml_server.no_such:thing", quiet=True)
    assert await worker.receive() is None
    assert await worker.wait() == 1
    await worker.close()


async def test_a_dead_fork_server_takes_its_workers_along_and_is_replaced(pool: ProcessPool) -> None:
    worker = await pool.start(f"{HERE}:stubborn")
    await worker.send(b"not read")
    killed = pool.process_id
    assert killed
    os.kill(killed, signal.SIGKILL)
    assert await worker.wait() == -signal.SIGKILL
    await worker.close()
    wait_for_end([worker.process_id])
    again = await pool.start(f"{HERE}:leave")
    await again.send(b"go")
    assert await again.wait() == 7
    await again.close()
    assert pool.process_id != killed


async def test_a_frozen_fork_server_is_replaced(pool: ProcessPool) -> None:
    worker = await pool.start(f"{HERE}:stubborn")
    assert pool.process_id
    os.kill(pool.process_id, signal.SIGSTOP)
    await worker.close()
    again = await pool.start(f"{HERE}:leave")
    await again.send(b"go")
    assert await again.wait() == 7
    await again.close()


async def test_a_fork_server_that_cannot_start_says_unavailable() -> None:
    # Without the standard library the program ends before it can serve.
    async with start_pool([], {"PYTHONHOME": "/nonexistent"}) as pool:
        with pytest.raises(Unavailable):
            await pool.start(f"{HERE}:leave")


async def test_what_a_module_fails_with_is_left_to_the_workers(caplog: pytest.LogCaptureFixture) -> None:
    async with start_pool(["no_such_module", HERE], worker_environment(threads=1)) as pool:
        worker = await pool.start(f"{HERE}:leave")
        await worker.send(b"go")
        assert await worker.wait() == 7
        await worker.close()
    assert "no_such_module" in caplog.text


async def test_closing_a_worker_ends_what_it_started_too(pool: ProcessPool) -> None:
    worker = await pool.start(f"{HERE}:with_grandchild")
    await worker.send(b"go")
    grandchild = await worker.receive()
    assert grandchild
    await worker.close()
    wait_for_end([int(grandchild), worker.process_id])


async def test_closing_a_pool_leaves_no_process(tmp_path: Path) -> None:
    async with start_pool([HERE], worker_environment(threads=1)) as pool:
        workers = [await pool.start(f"{HERE}:stubborn") for _ in range(3)]
        assert pool.process_id is not None
        family = [psutil.Process(pool.process_id), *psutil.Process(pool.process_id).children(recursive=True)]
        assert len(family) == 4
        for worker in workers:
            await worker.close()
    assert not [process for process in family if process.is_running()]


async def test_usage_is_read_alike_in_both_ways() -> None:
    ours, theirs = usage_by_proc(os.getpid()), usage_by_ps(os.getpid())
    assert ours
    assert theirs
    assert abs(ours.memory_bytes - theirs.memory_bytes) < 64 << 20
    assert abs(ours.cpu_seconds - theirs.cpu_seconds) < 5
    assert usage_by_proc(2**22 + 1) is None
    assert usage_by_ps(2**22 + 1) is None


SERVER = f"""
import asyncio, sys
from easyml_server.trainers.processes import start_pool, worker_environment
async def main():
    async with start_pool([{HERE!r}], worker_environment(threads=1)) as pool:
        if sys.argv[1] == "warm":
            workers = [await pool.start("{HERE}:stubborn") for _ in range(2)]
            for worker in workers:
                await worker.send(b"go")
                await worker.receive()
        print("READY", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize(("state", "frozen"), [("warm", False), ("warm", True), ("warming up", False)])
def test_no_process_outlives_a_killed_server(state: str, frozen: bool) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER, state], stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout
        assert server.stdout.readline() == "READY\n"
        descendants = psutil.Process(server.pid).children(recursive=True)
        assert len(descendants) == (3 if state == "warm" else 1)
        if frozen:
            descendants[0].suspend()
        server.kill()
    wait_for_end([process.pid for process in descendants])


def test_the_server_process_loads_no_data_frames() -> None:
    code = (
        "import sys, easyml_server.trainers.local, easyml_server.trainers.converter\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("numpy", "pandas", "pyarrow", "sklearn", "grpc", "lightgbm", "xgboost", "skops"):
        assert f"'{name}'" not in found


async def test_warmed_up_trainers_have_one_thread_and_no_grpc(tmp_path: Path) -> None:
    """A fork copies one thread only: another that held a lock would hold it for ever in the worker."""
    async with start_local_trainer(1, entry=f"{HERE}:tell_surroundings") as trainer:
        assert isinstance(trainer, LocalTrainer)
        found = await surroundings(trainer.pool, tmp_path)
        modules = {name.partition(".")[0] for name in found["modules"]}  # type: ignore[attr-defined]
        assert {"pandas", "sklearn", "lightgbm", "xgboost"} <= modules
        assert not modules & {"grpc", "sqlalchemy", "mlflow"}
        assert trainer.pool.process_id
        assert psutil.Process(trainer.pool.process_id).num_threads() == 1


async def test_a_converter_ends_at_its_time_limit(tmp_path: Path) -> None:
    async with start_pool([HERE], worker_environment(threads=1)) as pool:
        reader = ProcessTableReader(pool, 1, ConverterLimits(seconds=1), convert_entry=f"{HERE}:spin")
        with pytest.raises(InvalidInput) as caught:
            await reader.convert(a_conversion(tmp_path))
    assert caught.value.reason is Reason.TOO_LARGE
    assert caught.value.metadata["limit"] == "EASYML_CONVERTER_SECONDS"


@pytest.mark.parametrize("entry", ["crash", "leave", "babble", "fill_memory"])
async def test_a_converter_that_dies_means_the_file_is_unreadable(tmp_path: Path, entry: str) -> None:
    async with start_pool([HERE], worker_environment(threads=1)) as pool:
        reader = ProcessTableReader(pool, 1, ConverterLimits(memory_bytes=1 << 30), convert_entry=f"{HERE}:{entry}")
        with pytest.raises(InvalidInput) as caught:
            await reader.convert(a_conversion(tmp_path))
    assert caught.value.reason is Reason.UNREADABLE_FILE


async def test_a_cancelled_conversion_leaves_no_process(tmp_path: Path) -> None:
    async with start_pool([HERE], worker_environment(threads=1)) as pool:
        reader = ProcessTableReader(pool, 1, convert_entry=f"{HERE}:announce_and_spin")
        conversion = a_conversion(tmp_path)
        os.mkfifo(conversion.target)
        task = asyncio.create_task(reader.convert(conversion))
        assert await asyncio.to_thread(Path(conversion.target).read_text) == "here"
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert pool.process_id is not None
        assert not psutil.Process(pool.process_id).children(recursive=True)


async def test_a_csv_becomes_a_table_and_files_again(tmp_path: Path) -> None:
    async with start_table_reader(2) as reader:
        conversion = a_conversion(tmp_path)
        converted = await reader.convert(conversion)
        assert [column.name for column in converted.schema.columns] == ["a", "b"]
        head = await reader.preview(conversion.target, converted.schema, ["b"], 1, 1 << 20)
        assert [list(column.values) for column in head.columns] == [["x"]]
        await reader.export(conversion.target, FileFormat.CSV, str(tmp_path / "again.csv"))
    assert (tmp_path / "again.csv").read_text().splitlines() == ['"a","b"', '1,"x"', '2,"y"']


def a_conversion(folder: Path) -> Conversion:
    source = folder / "table.csv"
    source.write_text("a,b\n1,x\n2,y\n")
    return Conversion(str(source), FileFormat.CSV, ReadOptions(), str(folder / "table.parquet"), TableLimits())


def wait_for_end(process_ids: list[int]) -> None:
    """Of processes that are not ours, so that nothing but looking tells; zombies have ended."""
    processes = [psutil.Process(pid) for pid in process_ids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def test_a_table_becomes_a_model_and_again_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "flowers.csv", tmp_path / "table.parquet"
    rows = (f"{i % 17},{'ab'[i % 2]},{'no' if i % 17 < 8 else 'yes'}" for i in range(300))
    source.write_text("\n".join(["x,c,y", *rows]))
    for name in "ab":
        (tmp_path / name).mkdir()
    async with start_table_reader(1) as reader:
        options, limits = ReadOptions(), TableLimits()
        found = await reader.convert(Conversion(str(source), FileFormat.CSV, options, str(target), limits))
    async with start_local_trainer(2) as trainer:
        outcomes = await asyncio.gather(*(_trained(trainer, tmp_path / name, target, found.schema) for name in "ab"))
    assert outcomes[0].metrics == outcomes[1].metrics
    written = {artifact.filename for artifact in outcomes[0].manifest.artifacts}
    assert written <= {path.name for path in (tmp_path / "a").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["random_forest", "hist_gradient_boosting", "lightgbm", "xgboost"])
async def test_a_worker_finds_everything_imported(tmp_path: Path, algorithm: str) -> None:
    generator = random.Random(0)
    values = [generator.random() for _ in range(60)]
    columns = {"x": values, "c": ["a", "b"] * 30, "y": ["high" if value > 0.5 else "low" for value in values]}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    kinds = {"x": (StorageType.DOUBLE, ColumnKind.NUMERIC)}
    text = (StorageType.STRING, ColumnKind.CATEGORICAL)
    schema = TableSchema(tuple(ColumnSchema(name, *kinds.get(name, text)) for name in columns), len(values))
    job = replace(a_job(tmp_path, features=("x", "c"), algorithm=algorithm), schema=schema)
    async with start_local_trainer(1, entry=f"{HERE}:train_and_tell_imports") as trainer:
        assert isinstance(await trainer.train(job, lambda _: None), TrainingSucceeded)
    imported = (tmp_path / "imported").read_text().split()
    assert [name for name in imported if not name.startswith("encodings.")] == []


async def _trained(trainer: LocalTrainer, folder: Path, table: Path, schema: TableSchema) -> TrainingSucceeded:
    job = replace(a_job(folder, features=("x", "c")), table_path=str(table), schema=schema)
    outcome = await trainer.train(job, lambda _: None)
    assert isinstance(outcome, TrainingSucceeded), outcome
    return outcome
