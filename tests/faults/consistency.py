"""What must be true of a data folder, or of what servers share, after whatever happened to them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from easyml_server.domain.faults import FAULT_VARIABLE
from tests.faults.plan import until
from tests.servers import END_SECONDS

COPIED = ("dataset_versions", "model_versions", "uploads", "ml_experiments", "training_events", "outbox", "documents")
UNFINISHED = ("queued", "running", "cancelling")


def check_consistent(data: Path) -> None:
    """Rows and files are whole and fit together, and nothing else lies about; no training may be running."""
    until(lambda: not list((data / "work").iterdir()), "the working folder is empty")
    with closing(sqlite3.connect(f"file:{data / 'easyml.db'}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        check_rows_and_files(data, database)


def check_shared(files: Path, url: str) -> None:
    """The same of servers on one PostgreSQL; all of them live, or were started again since one died."""
    until(lambda: not list(files.glob("work/*/*")), "the working folders are empty")
    with closing(asyncio.run(copied(url))) as database:
        check_rows_and_files(files, database)
        assert database.execute("SELECT id FROM ml_experiments WHERE owner IS NOT NULL").fetchall() == []


def check_rows_and_files(files: Path, database: sqlite3.Connection) -> None:
    working = {path.name for path in files.glob("work/*")}
    until(lambda: {path.name for path in files.glob("locks/*")} <= working, "nobody holds anything")
    check_files(files, database)
    check_uploads(files, database)
    check_trainings(database)
    check_runs(files, database)
    check_versions(files, database)


async def copied(url: str) -> sqlite3.Connection:
    """The rows of PostgreSQL where the checks can ask for them."""
    copy = sqlite3.connect(":memory:")
    connection = await asyncpg.connect(url)
    # As of one moment: servers are at work.
    moment = connection.transaction(isolation="repeatable_read", readonly=True)
    try:
        await moment.start()
        for table in COPIED:
            rows = await connection.fetch(f'SELECT * FROM "{table}"')
            columns = await connection.fetch(
                "SELECT column_name FROM information_schema.columns WHERE table_name = $1 ORDER BY ordinal_position",
                table,
            )
            copy.execute(f"CREATE TABLE {table} ({', '.join(row[0] for row in columns)})")
            holes = ", ".join("?" * len(columns))
            copy.executemany(
                f"INSERT INTO {table} VALUES ({holes})", [[as_stored(value) for value in row.values()] for row in rows]
            )
    finally:
        await connection.close()
    return copy


def as_stored(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def check_files(data: Path, database: sqlite3.Connection) -> None:
    """There is a folder for each version and no other, and its files are the ones that were told of."""
    folders = {
        path.name.replace("-", ""): path for kind in ("datasets", "models") for path in data.glob(f"files/*/{kind}/*")
    }
    datasets = database.execute("SELECT id, stored_sha256, sha256, keeps_original FROM dataset_versions").fetchall()
    models = database.execute("SELECT id, manifest FROM model_versions").fetchall()
    assert set(folders) == {plain(row[0]) for row in (*datasets, *models)}
    for identity, stored_sha256, sha256, keeps_original in datasets:
        expected = {"table.parquet": stored_sha256, **({"original": sha256} if keeps_original else {})}
        assert hashes(folders[plain(identity)]) == expected
    for identity, manifest in models:
        found = hashes(folders[plain(identity)])
        del found["manifest.json"]
        assert found == {each["filename"]: each["sha256"] for each in json.loads(manifest)["artifacts"]}


def check_uploads(data: Path, database: sqlite3.Connection) -> None:
    """Bytes lie only where an upload can be continued, and there are as many as was said."""
    rows = database.execute("SELECT id, received_bytes FROM uploads WHERE state NOT IN ('completed', 'failed')")
    waiting = {plain(identity): received for identity, received in rows}
    for path in (data / "uploads").iterdir():
        # <user>-<upload>, two ids in their long form
        assert path.stat().st_size >= waiting[plain(path.name[37:])]


def check_trainings(database: sqlite3.Connection) -> None:
    """Sequences have no gap, the end comes last and once, and a success has one model."""
    for identity, state, last in database.execute("SELECT id, state, last_sequence FROM ml_experiments").fetchall():
        rows = database.execute(
            "SELECT sequence, body, event_time FROM training_events WHERE experiment_id = ? ORDER BY sequence",
            [identity],
        ).fetchall()
        assert [row[0] for row in rows] == list(range(1, last + 1))
        kinds = [kind_of(row[1]) for row in rows]
        assert kinds.count("finished") == (state not in UNFINISHED)
        assert state in UNFINISHED or kinds[-1] == "finished"
        models = database.execute("SELECT count(*) FROM model_versions WHERE experiment_id = ?", [identity]).fetchone()
        assert models == (int(state == "succeeded"),)


def check_runs(data: Path, database: sqlite3.Connection) -> None:
    """Each success is recorded in MLflow or will be, none twice."""
    missing = database.execute(
        "SELECT id FROM ml_experiments WHERE state = 'succeeded' AND mlflow_run_id = '' "
        "AND id NOT IN (SELECT subject_id FROM outbox)"
    ).fetchall()
    assert missing == []
    if (data / "mlflow" / "mlflow.db").exists():
        with closing(sqlite3.connect(f"file:{data / 'mlflow' / 'mlflow.db'}?mode=ro", uri=True)) as recorded:
            tags = recorded.execute(
                "SELECT value FROM tags JOIN runs USING (run_uuid) "
                "WHERE key = 'easyml.experiment_id' AND lifecycle_stage = 'active'"
            ).fetchall()
        assert len(tags) == len(set(tags)), "a run was recorded twice"


def check_versions(data: Path, database: sqlite3.Connection) -> None:
    """Each version is in DVC, with all its files, or will be."""
    versions = database.execute("SELECT id FROM dataset_versions UNION SELECT id FROM model_versions").fetchall()
    # Before the pointers, since the server may push meanwhile.
    waiting = {plain(row[0]) for row in database.execute("SELECT subject_id FROM outbox").fetchall()}
    documents = database.execute("SELECT id, body FROM documents WHERE collection = 'dvc_metadata'").fetchall()
    pointers = {plain(identity): json.loads(body) for identity, body in documents}
    assert {plain(row[0]) for row in versions} <= set(pointers) | waiting
    for identity, pointer in pointers.items():
        if identity not in waiting:
            assert pointer["push_time"]
            cache = data / "dvc-remote" / pointer["project_id"] / "files" / "md5"
            listed = json.loads((cache / pointer["md5"][:2] / pointer["md5"][2:]).read_text())
            assert all((cache / each["md5"][:2] / each["md5"][2:]).exists() for each in listed)


def check_no_process(data: Path) -> None:
    """Nothing that a server on this folder started outlives it."""
    _, left = psutil.wait_procs(processes_of(data), timeout=END_SECONDS)
    assert not left, f"processes stayed behind: {left}"


def processes_of(data: Path) -> list[psutil.Process]:
    """Whatever names the folder in its command line, its environment or as its working folder."""
    return [
        process for process in psutil.process_iter() if process.pid != psutil.Process().pid and names(process, data)
    ]


def names(process: psutil.Process, data: Path) -> bool:
    try:
        said = [*process.cmdline(), process.environ().get(FAULT_VARIABLE, ""), process.cwd()]
    except (psutil.Error, OSError):
        return False
    return any(Path(each).is_relative_to(data.parent) for each in said if each.startswith("/"))


def kind_of(body: str) -> Any:
    return json.loads(body)["type"]


def plain(identity: object) -> str:
    return str(identity).replace("-", "")


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
