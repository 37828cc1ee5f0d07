"""Every knob with its unit and default: from the environment (EASYML_ and the name in capitals) and `easyml.toml`.

The environment wins over the file; the file is `easyml.toml` in the working directory, or what EASYML_CONFIG names.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from easyml_server.domain.datasets import TableLimits
from easyml_server.domain.limits import GIB, MIB, Limits, PoolLimits

MEMORY_SHARE = 0.8
LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
NAME = r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$"
IMAGE = r"^[^\s@:/][^\s]{0,511}$"
"""As Kubernetes writes names of namespaces, names of other objects, and images."""


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/easyml`, else `~/.local/share/easyml`."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "easyml"


def default_workers() -> int:
    """One training per two processors, at least one."""
    return max(1, (os.cpu_count() or 1) // 2)


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Settings(BaseSettings):
    """All settings of the server. Sizes are bytes, times are in the unit of the name."""

    model_config = SettingsConfigDict(env_prefix="EASYML_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(default_factory=default_data_dir, description="Folder of everything that is stored.")
    database_url: SecretStr | None = Field(
        None, description="postgresql://user:password@host/name; an embedded database in the data folder if not set."
    )
    database_listen_url: SecretStr | None = Field(
        None, description="The same database without a pooler such as PgBouncer, for LISTEN; database_url if not set."
    )
    database_connections: int = Field(10, ge=2, description="Connections to PostgreSQL.")
    database_wait_seconds: float = Field(5, gt=0, description="How long a call waits for one of them.")
    database_lock_seconds: float = Field(10, gt=0, description="How long a statement waits for a lock.")
    database_statement_seconds: float = Field(30, gt=0, description="How long a statement may run.")
    lease_seconds: float = Field(
        15, ge=1, description="A training or deployment whose server was not heard of for this long is another's."
    )
    mongodb_url: SecretStr | None = Field(
        None, description="mongodb://user:password@host/name; documents are kept in the database if not set."
    )
    mongodb_wait_seconds: float = Field(1.5, gt=0, description="How long a call waits for MongoDB.")
    dask_address: str | None = Field(
        None,
        description="tcp:// or tls://host:port of a Dask scheduler whose workers train; processes here if not set.",
    )
    migrate_at_start: bool = Field(False, description="Bring PostgreSQL and MongoDB to this release's schema at start.")
    dvc_remote: str | None = Field(
        None, description="URL that versions are pushed to: s3://…, or any that DVC knows; the data folder if not set."
    )
    mlflow_tracking_uri: SecretStr | None = Field(
        None, description="http(s)://host of an MLflow tracking server; MLflow in the data folder if not set."
    )
    mlflow_register_models: bool = Field(
        False, description="Make each model version one of a registered model in MLflow, and its aliases there too."
    )
    tls_cert_file: Path | None = Field(
        None, description="PEM file of the server's certificate and its issuers; with it the server speaks TLS only."
    )
    tls_key_file: Path | None = Field(None, description="PEM file of its private key, readable by the server alone.")
    tls_client_ca_file: Path | None = Field(
        None, description="PEM file of authorities; if set, clients need a certificate of one of them (mutual TLS)."
    )
    artifact_url: str | None = Field(
        None,
        description="file:///folder or s3://bucket/folder of files that servers share; in the data folder if not set.",
    )
    artifact_copies_bytes: int = Field(
        10 * GIB, ge=0, description="Copies here of files in an object store, beyond those in use."
    )
    signing_key_file: Path | None = Field(
        None,
        description="Ed25519 key (PEM) to sign tokens that servers share; made in the data folder if not set.",
    )
    allow_plaintext: bool = Field(False, description="Serve without TLS on an address other machines can reach.")
    open_registration: bool = Field(False, description="Let people make accounts themselves (Register).")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least weight of log lines.")
    log_format: str = Field("console", pattern="^(console|json)$", description="Form of log lines on standard error.")

    max_message_bytes: int = Field(4 * MIB, ge=MIB, description="A prediction request.")
    max_control_bytes: int = Field(256 * 1024, ge=64 * 1024, description="Any other request but a chunk.")
    max_metadata_bytes: int = Field(8 * 1024, ge=1024, description="Metadata of a call.")
    max_in_flight: int = Field(128, ge=1, description="Unary calls answered at once.")
    max_in_flight_per_user: int = Field(32, ge=1, description="Of these, of one user.")
    max_predictions: int = Field(256, ge=1, description="Predict calls answered at once.")
    max_waiting_predictions: int = Field(
        100, ge=1, description="Of these, calls that wait for the first replica of a deployment."
    )
    max_streams: int = Field(2000, ge=1, description="Streams open at once.")
    max_streams_per_user: int = Field(50, ge=1, description="Of these, of one user.")
    admission_wait_ms: int = Field(200, ge=0, description="How long a call waits for a place before it is refused.")
    default_deadline_seconds: float = Field(60, gt=0, description="Deadline of a unary call that has none.")
    handshake_seconds: float = Field(10, gt=0, description="Time to begin speaking after connecting.")
    connection_idle_seconds: float = Field(900, gt=0, description="After this long without a call a connection ends.")
    connection_age_seconds: float = Field(3600, gt=0, description="After this long a connection is renewed.")
    min_ping_seconds: float = Field(10, gt=0, description="Least time between pings of a client.")

    max_upload_bytes: int = Field(2 * GIB, ge=1, description="An uploaded file.")
    max_chunk_bytes: int = Field(MIB, ge=1024, description="A chunk of an upload.")
    upload_idle_seconds: float = Field(60, gt=0, description="An upload without a chunk for this long is cut off.")
    upload_expiry_hours: float = Field(24, gt=0, description="An unfinished upload is forgotten after this.")
    max_uploads: int = Field(32, ge=1, description="Unfinished uploads.")
    max_uploads_per_user: int = Field(4, ge=1, description="Of these, of one user.")
    max_columns: int = Field(10_000, ge=1, description="Columns of a table.")
    max_rows: int = Field(50_000_000, ge=1, description="Rows of a table.")
    max_cell_bytes: int = Field(MIB, ge=1, description="A text in a table.")
    max_line_bytes: int = Field(4 * MIB, ge=1, description="A line of a CSV or JSON lines file.")
    max_unpacked_bytes: int = Field(512 * MIB, ge=1, description="An .xlsx file, unpacked.")
    max_unpacked_ratio: int = Field(300, ge=1, description="An .xlsx file, unpacked to packed.")
    max_members: int = Field(1_000, ge=1, description="Members of an .xlsx file.")
    converters: int = Field(2, ge=1, description="Files converted at once.")
    converter_memory_bytes: int = Field(2 * GIB, ge=256 * MIB, description="Memory of a converter.")
    converter_file_bytes: int = Field(16 * GIB, ge=MIB, description="A file that a converter writes.")
    converter_seconds: int = Field(600, ge=1, description="Processor time of a converter.")

    max_predict_rows: int = Field(10_000, ge=1, description="Rows of a prediction request.")
    max_predict_cells: int = Field(200_000, ge=1, description="Cells of a prediction request.")
    max_arrow_bytes: int = Field(3 * MIB, ge=1024, description="The Arrow part of a prediction request.")
    model_servers: int = Field(8, ge=1, description="Model servers kept warm; the one unused longest is stopped.")

    max_model_bytes: int = Field(GIB, ge=1, description="A stored model.")
    project_storage_bytes: int = Field(50 * GIB, ge=1, description="Files of a project.")
    min_free_disk_bytes: int = Field(GIB, ge=0, description="Space that is kept free on the disk.")

    workers: int = Field(
        default_factory=default_workers,
        ge=1,
        description="Trainings that run at once here; on Dask, as many as threads.",
    )
    worker_memory_bytes: int = Field(
        0,
        ge=0,
        description="Memory of a training; if 0, 80 % of memory by workers (on Dask: of a worker's, by threads).",
    )
    preload: bool = Field(
        True,
        description="Import at start what trainings need (300 MB); if false, with the first.",
    )
    training_seconds: float = Field(86_400, gt=0, description="Longest time of a training.")
    trainings_per_project: int = Field(2, ge=1, description="Trainings of a project that run at once.")
    queued_per_project: int = Field(100, ge=1, description="Trainings of a project that have not ended.")
    queue_length: int = Field(1_000, ge=1, description="Trainings that have not ended.")
    deployments: int = Field(20, ge=0, description="Deployments that are not stopped.")
    replicas: int = Field(20, ge=1, le=1000, description="Replicas of a deployment.")
    deployment_orphan_seconds: float = Field(
        600, gt=0, description="Replicas on this machine end when no server has come back for them for this long."
    )
    kubernetes_namespace: str | None = Field(
        None,
        pattern=LABEL,
        description="Namespace of a cluster where deployments may run; there is no such target if not set.",
    )
    kubernetes_image: str | None = Field(
        None, pattern=IMAGE, description="Image of the model server (easyml-model-server) that pods run."
    )
    kubernetes_image_pull_policy: str = Field(
        "IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="When nodes fetch the image."
    )
    kubernetes_image_pull_secret: str | None = Field(
        None, pattern=NAME, description="Secret of the namespace that the registry of the image asks for."
    )
    kubernetes_store_secret: str | None = Field(
        None,
        pattern=NAME,
        description="Secret of variables that reading EASYML_ARTIFACT_URL takes, such as AWS_ACCESS_KEY_ID.",
    )
    kubernetes_service_account: str | None = Field(
        None, pattern=NAME, description="Service account of the pods, which get no token of it; default if not set."
    )
    kubeconfig_file: Path | None = Field(
        None, description="kubeconfig of the cluster; the service account of the server's own pod if not set."
    )
    kubernetes_context: str | None = Field(None, description="Context of that file; its current one if not set.")
    events_per_second: int = Field(50, ge=1, description="Iteration and log events of a training.")
    events_per_run: int = Field(100_000, ge=100, description="Events of a training.")
    log_line_bytes: int = Field(8 * 1024, ge=256, description="A log line of a training.")

    access_token_minutes: float = Field(15, gt=0, description="Life of an access token.")
    session_days: float = Field(30, gt=0, description="Life of a session.")
    session_idle_days: float = Field(7, gt=0, description="A session not refreshed for this long ends.")
    sessions_per_user: int = Field(20, ge=1, description="Sessions of a user; the oldest end.")
    api_key_days: float = Field(365, gt=0, description="Life of an API key that names no expiry.")
    logins_per_minute: int = Field(10, ge=1, description="Attempts to sign in to an account.")
    logins_per_minute_per_address: int = Field(30, ge=1, description="Attempts to sign in from an address.")
    password_hashes: int = Field(4, ge=1, description="Passwords hashed at once; 19 MiB each.")

    drain_delay_seconds: float = Field(0, ge=0, description="Between going not ready and refusing calls.")
    drain_grace_seconds: float = Field(20, ge=0, description="Time for calls in flight to end.")

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.max_chunk_bytes > self.max_message_bytes:
            raise ValueError("max_chunk_bytes must not be larger than max_message_bytes")
        if self.dvc_remote is not None and urlsplit(self.dvc_remote).password:
            raise ValueError(
                "dvc_remote must hold no password: whoever pulls is told it, and uses credentials of their own"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError(
                "EASYML_TLS_CERT_FILE and EASYML_TLS_KEY_FILE belong together; set both, or neither for plaintext"
            )
        if self.kubernetes_namespace is not None and self.kubernetes_image is None:
            raise ValueError(
                "EASYML_KUBERNETES_NAMESPACE takes an image of the model server; set EASYML_KUBERNETES_IMAGE too"
            )
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError(
                "EASYML_TLS_CLIENT_CA_FILE is for TLS; set EASYML_TLS_CERT_FILE and EASYML_TLS_KEY_FILE too"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature of the library)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the signature of the library)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    def limits(self) -> Limits:
        """The limits of use cases."""
        own = {field.name for field in fields(Limits)} - {"table"}
        values: dict[str, Any] = {name: getattr(self, name) for name in own}
        if self.dask_address is None:
            own_share = int(MEMORY_SHARE * memory_bytes() / self.workers)
            values["worker_memory_bytes"] = self.worker_memory_bytes or own_share
        table = TableLimits(**{field.name: getattr(self, field.name) for field in fields(TableLimits)})
        return Limits(**values, table=table)

    def pool_limits(self) -> PoolLimits:
        """Connections to PostgreSQL."""
        return PoolLimits(
            self.database_connections,
            self.database_wait_seconds,
            self.database_lock_seconds,
            self.database_statement_seconds,
        )


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def config_file() -> Path:
    """The settings file: what EASYML_CONFIG names, else `easyml.toml` here."""
    return Path(os.environ.get("EASYML_CONFIG", "easyml.toml"))


def origin_of(name: str) -> str:
    """Where a setting's value comes from: environment, file or default."""
    if f"EASYML_{name.upper()}" in os.environ:
        return "environment"
    path = config_file()
    if path.exists() and name in tomllib.loads(path.read_text()):
        return str(path)
    return "default"
