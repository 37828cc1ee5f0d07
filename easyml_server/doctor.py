"""Whether this machine and the data folder are fit to serve, in words a person can act on."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Coroutine, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from easyml_server.belongings import look_at_files, look_at_locks, look_at_signals
from easyml_server.data_folder import DataFolder, StartError
from easyml_server.files import check_object_store, files_root, object_store, object_url
from easyml_server.repositories.sql.migrate import HEAD
from easyml_server.security.tokens import WrongKeyError, load_key
from easyml_server.settings import Settings

MIN_SQLITE = (3, 35)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed."""
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("python", sys.version_info[:2] == (3, 11), f"{sys.version.split()[0]}; 3.11 is needed.")
    yield _sqlite()
    yield from _packages()
    yield _folder(settings)
    yield from _shared(settings)
    yield _disk(settings)
    database = (
        _database(settings)
        if settings.database_url is None
        else _database_server(settings, settings.database_url.get_secret_value())
    )
    yield database
    yield from _belongings(settings, there=database.ok)
    yield from _certificate(settings)
    if settings.mlflow_tracking_uri is not None:
        yield _tracking(settings)
    if settings.dask_address is not None:
        yield _dask(settings, settings.dask_address)
    yield _port(settings)


def _sqlite() -> Finding:
    fine = sqlite3.sqlite_version_info >= MIN_SQLITE
    return Finding("sqlite", fine, f"{sqlite3.sqlite_version}; 3.35 or newer is needed.")


def _packages() -> Iterator[Finding]:
    for name in ("grpcio", "protobuf", "scikit-learn", "pandas", "mlflow", "skops", "onnxruntime"):
        try:
            yield Finding(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "is not installed; run: uv sync")


def _folder(settings: Settings) -> Finding:
    path = settings.data_dir.expanduser().absolute()
    if not path.exists():
        parent = next(each for each in path.parents if each.exists())
        fine = os.access(parent, os.W_OK)
        return Finding("data folder", fine, f"{path} will be made." if fine else f"{parent} cannot be written.")
    if not os.access(path, os.W_OK):
        return Finding("data folder", False, f"{path} cannot be written; choose another with EASYML_DATA_DIR.")
    open_to_others = path.stat().st_mode & 0o077
    advice = f"others can read {path}; run: chmod 700 {path}" if open_to_others else str(path)
    return Finding("data folder", not open_to_others, advice)


def _shared(settings: Settings) -> Iterator[Finding]:
    """What this server has in common with others."""
    if settings.artifact_url is not None:
        yield _shared_files(settings)
    if settings.signing_key_file is not None:
        try:
            load_key(settings.signing_key_file)
        except WrongKeyError as error:
            yield Finding("signing key", False, f"{error} Make one: openssl genpkey -algorithm ed25519")
        else:
            yield Finding("signing key", True, str(settings.signing_key_file))


def _shared_files(settings: Settings) -> Finding:
    try:
        url = object_url(settings)
        if url is not None:
            with object_store(url) as store:
                asyncio.run(check_object_store(store))
            return Finding("shared files", True, url)
        root = files_root(settings, settings.data_dir)
        look_at_locks(settings, _data_folder(settings))
    except StartError as error:
        return Finding("shared files", False, str(error))
    existing = next(each for each in (root, *root.parents) if each.exists())
    if not os.access(existing, os.W_OK):
        return Finding("shared files", False, f"{existing} cannot be written; see EASYML_ARTIFACT_URL.")
    return Finding("shared files", True, str(root))


def _disk(settings: Settings) -> Finding:
    path = settings.data_dir.expanduser().absolute()
    existing = next(each for each in (path, *path.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    fine = free > settings.min_free_disk_bytes
    return Finding("disk", fine, f"{free >> 20} MiB free; {settings.min_free_disk_bytes >> 20} MiB are kept free.")


def _database(settings: Settings) -> Finding:
    path = settings.data_dir.expanduser().absolute() / "easyml.db"
    if not path.exists():
        return Finding("database", True, "will be made at the first start.")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
            damage = connection.execute("PRAGMA quick_check").fetchone()[0]
        finally:
            connection.close()
    except (sqlite3.Error, TypeError) as error:
        return Finding("database", False, f"{path} cannot be read ({error}); restore it from a backup.")
    if damage != "ok":
        return Finding("database", False, f"{path} is damaged ({damage}); restore it from a backup.")
    if revision != HEAD:
        return Finding("database", False, f"has schema {revision}, this release {HEAD}; run: easyml-server migrate")
    return Finding("database", True, f"schema {revision}.")


def _database_server(settings: Settings, url: str) -> Finding:
    from easyml_server.repositories.sql.opening import CannotOpenError, prepare_server

    try:
        asyncio.run(prepare_server(url, settings.pool_limits(), migrate=False))
    except CannotOpenError as error:
        return Finding("database", False, str(error))
    return Finding("database", True, f"schema {HEAD}.")


def _belongings(settings: Settings, *, there: bool) -> Iterator[Finding]:
    """What belongs to the database, if that is in order."""
    from easyml_server.documents import look_at_documents

    folder = _data_folder(settings)
    made = there and (settings.database_url is not None or folder.database.exists())
    if made:
        yield _looked("files", look_at_files(settings, folder))
    if made or settings.mongodb_url is not None:
        yield _looked("documents", look_at_documents(settings, folder))
    if made and settings.database_url is not None:
        yield _looked("signals", look_at_signals(settings, settings.database_url))


def _data_folder(settings: Settings) -> DataFolder:
    return DataFolder(settings.data_dir.expanduser().absolute())


def _certificate(settings: Settings) -> Iterator[Finding]:
    from easyml_server.exposure import certificate_files
    from easyml_server.transport.certificates import CertificateError, read_certificate

    files = certificate_files(settings)
    if files is None:
        return
    now = datetime.now(UTC)
    try:
        found = read_certificate(files, now)
    except CertificateError as error:
        yield Finding("certificate", False, str(error))
        return
    sentence = f"{files.certificate} for {', '.join(found.names)}; {found.days_left(now)} days left."
    if found.expires_soon(now):
        sentence += f" Renew it before {found.expires:%Y-%m-%d %H:%M} UTC; the server takes it without a restart."
    yield Finding("certificate", not found.expires_soon(now), sentence)
    if found.client_ca_expires is not None:
        left = (found.client_ca_expires - now).days
        yield Finding("client authority", True, f"{files.client_ca}; {left} days left.")


def _tracking(settings: Settings) -> Finding:
    from easyml_server.recording import look_at_tracking, tracking_server

    async def look() -> str:
        server = tracking_server(settings)
        return "MLflow in the data folder." if server is None else await look_at_tracking(server)

    return _looked("tracking", look())


def _dask(settings: Settings, address: str) -> Finding:
    from easyml_server.cluster import look_at_dask

    return _looked("dask", look_at_dask(settings, address))


def _looked(what: str, look: Coroutine[Any, Any, str]) -> Finding:
    try:
        return Finding(what, True, asyncio.run(look))
    except StartError as error:
        return Finding(what, False, str(error))


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        sentence = f"{settings.host}:{settings.port} is not free ({error.strerror}); a server may run already."
        return Finding("port", False, sentence)
    return Finding("port", True, f"{settings.host}:{settings.port} is free.")
