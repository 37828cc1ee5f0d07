"""What grows has a limit; an error names it. Each value's setting is EASYML_ and its name in capitals."""

from __future__ import annotations

from dataclasses import dataclass, field

from easyml_server.domain.datasets import TableLimits

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of use cases; those of tables are in `table`."""

    max_upload_bytes: int = 2 * GIB
    max_chunk_bytes: int = MIB
    upload_idle_seconds: float = 60
    upload_expiry_hours: float = 24
    max_uploads: int = 32
    max_uploads_per_user: int = 4
    max_model_bytes: int = GIB
    project_storage_bytes: int = 50 * GIB
    trainings_per_project: int = 2
    queued_per_project: int = 100
    queue_length: int = 1_000
    deployments: int = 20
    replicas: int = 20
    training_seconds: float = 86_400
    worker_memory_bytes: int = 4 * GIB
    log_line_bytes: int = 8 * 1024
    access_token_minutes: float = 15
    session_days: float = 30
    session_idle_days: float = 7
    sessions_per_user: int = 20
    api_key_days: float = 365
    logins_per_minute: int = 10
    logins_per_minute_per_address: int = 30
    table: TableLimits = field(default_factory=TableLimits)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Connections to a database server, and how long a call waits for one, for a lock, and for an answer."""

    connections: int = 10
    wait_seconds: float = 5.0
    lock_seconds: float = 10.0
    statement_seconds: float = 30.0
