"""Rows and documents, inside units of work.

`get` raises NotFound, `find` may return None. Wherever a `Caller` is asked for, the query itself holds the membership
and the scope: what the caller cannot see is not there, and a role below `caller.needs` is NotAllowed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from easyml_server.domain.datasets import Dataset, DatasetVersion, Upload
from easyml_server.domain.deployments import Deployment, Revision
from easyml_server.domain.events import TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.leases import Abandoned, Held, HeldDeployment, Lease
from easyml_server.domain.models import AliasHistoryEntry, Model, ModelVersion, RecordedVersion
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.projects import Member, Project, ProjectConfig, Role
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.results import ModelResults
from easyml_server.domain.sessions import MlflowRun, TrainingSession
from easyml_server.domain.statistics import TableStatistics
from easyml_server.domain.users import ApiKey, Caller, Session, User
from easyml_server.domain.versioning import DvcPointer
from easyml_server.ports.documents import PendingDocuments

STORED: ContextVar[bool] = ContextVar("stored", default=False)
"""Set where a unit of work commits, done or not known to be: what the call did until then must not be done again."""


class UserRepository(Protocol):
    """Accounts, sessions and API keys."""

    async def add(self, user: User) -> None:
        """Raises AlreadyExists when the e-mail address is taken."""
        ...

    async def get(self, user_id: UUID) -> User: ...

    async def find_by_email(self, email: str) -> User | None: ...

    async def add_session(self, session: Session) -> None: ...

    async def find_session(self, session_id: UUID) -> Session | None: ...

    async def find_session_by_refresh(self, refresh_sha256: str) -> tuple[Session, bool] | None:
        """The session that a refresh token belongs or belonged to, and whether the token is the one valid now."""
        ...

    async def rotate(self, session: Session, used_sha256: str) -> bool:
        """Store the session's new refresh token and remember the used one; False when somebody else was faster."""
        ...

    async def end_sessions(self, user_id: UUID, time: datetime, session_id: UUID | None = None) -> int:
        """End one session, or all of the user's; returns how many were open."""
        ...

    async def trim_sessions(self, user_id: UUID, keep: int, time: datetime) -> None:
        """End the oldest open sessions beyond `keep`."""
        ...

    async def add_api_key(self, key: ApiKey) -> None: ...

    async def get_api_key(self, key_id: UUID, user_id: UUID) -> ApiKey: ...

    async def find_api_key(self, secret_sha256: str) -> ApiKey | None: ...

    async def list_api_keys(self, user_id: UUID, page: PageRequest) -> Page[ApiKey]: ...

    async def revoke_api_key(self, key_id: UUID, time: datetime) -> None: ...


class ProjectRepository(Protocol):
    """Projects, members and configuration."""

    async def add(self, project: Project, config: ProjectConfig) -> None:
        """Store a project, its creator as owner, and its configuration. Raises AlreadyExists."""
        ...

    async def get(self, project_id: UUID, caller: Caller) -> Project: ...

    async def load(self, project_id: UUID) -> Project:
        """Without a caller: for the server's own work."""
        ...

    async def list(self, caller: Caller, page: PageRequest) -> Page[Project]: ...

    async def save(self, project: Project, etag: str) -> None:
        """Store a changed project, whose etag is new. `etag` is the one read before, or empty; raises Stale."""
        ...

    async def delete(self, project_id: UUID, etag: str) -> None:
        """Delete a project and all rows and documents in it."""
        ...

    async def get_config(self, project_id: UUID) -> ProjectConfig: ...

    async def save_config(self, config: ProjectConfig, etag: str) -> None: ...

    async def list_members(self, project_id: UUID, page: PageRequest) -> Page[Member]: ...

    async def find_member(self, project_id: UUID, user_id: UUID) -> Member | None: ...

    async def set_member(self, project_id: UUID, user_id: UUID, role: Role, time: datetime) -> None: ...

    async def remove_member(self, project_id: UUID, user_id: UUID) -> None: ...

    async def count_owners(self, project_id: UUID) -> int: ...


class DatasetRepository(Protocol):
    """Datasets, their versions with what these hold, and uploads."""

    async def add(self, dataset: Dataset) -> None:
        """Store a dataset with its current version. Raises AlreadyExists."""
        ...

    async def put_statistics(self, version: DatasetVersion, statistics: TableStatistics) -> None: ...

    async def find_statistics(self, version_ids: Sequence[UUID]) -> Mapping[UUID, TableStatistics]:
        """Of these versions, but those of releases that had none."""
        ...

    async def get(self, dataset_id: UUID, caller: Caller) -> Dataset: ...

    async def get_version(self, version_id: UUID) -> DatasetVersion: ...

    async def find_by_name(self, project_id: UUID, name: str) -> Dataset | None: ...

    async def list(self, project_id: UUID, page: PageRequest) -> Page[Dataset]: ...

    async def list_versions(self, project_id: UUID) -> Sequence[DatasetVersion]: ...

    async def save(self, dataset: Dataset, etag: str) -> None: ...

    async def delete(self, dataset_id: UUID, etag: str) -> None: ...

    async def stored_bytes(self, project_id: UUID) -> int:
        """Bytes that the datasets and models of a project keep on disk."""
        ...

    async def put_upload(self, upload: Upload) -> None: ...

    async def find_upload(self, upload_id: UUID, user_id: UUID) -> Upload | None: ...

    async def count_uploads(self, user_id: UUID | None) -> int:
        """Unfinished uploads of a user, or of all."""
        ...

    async def expire_uploads(self, time: datetime) -> Sequence[Upload]:
        """Forget unfinished uploads that expired, and return them for their files."""
        ...

    async def unfinished_uploads(self) -> Sequence[Upload]: ...


@dataclass(frozen=True, slots=True)
class ExperimentFilter:
    """What a list of experiments is narrowed to."""

    states: tuple[TrainingState, ...] = ()
    dataset_id: UUID | None = None
    algorithm: str = ""


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Events of one experiment that are stored together, with the session they lead to, under a fencing number."""

    events: Sequence[TrainingEvent]
    session: TrainingSession
    fencing: int

    @property
    def experiment_id(self) -> UUID:
        """Whose they are."""
        return self.session.experiment_id


class ExperimentRepository(Protocol):
    """Experiments, their events and live sessions."""

    async def add(self, experiment: Experiment) -> None: ...

    async def get(self, experiment_id: UUID, caller: Caller) -> Experiment: ...

    async def load(self, experiment_id: UUID) -> Experiment:
        """Without a caller: for the server's own work."""
        ...

    async def list(self, project_id: UUID, page: PageRequest, only: ExperimentFilter) -> Page[Experiment]: ...

    async def save(self, experiment: Experiment) -> None:
        """Store a changed experiment; Stale when its fencing number is no longer the stored one."""
        ...

    async def count_active(self, project_id: UUID | None) -> int:
        """Experiments of a project, or all, that have not ended."""
        ...

    async def count_of_project(self, project_id: UUID) -> int: ...

    async def count_of_dataset(self, dataset_id: UUID, *, active: bool) -> int: ...

    async def durations(self, algorithm: str, project_id: UUID) -> Sequence[tuple[int, float]]:
        """(rows, seconds) of the latest trainings of an algorithm, for estimates."""
        ...

    async def add_events(self, events: Sequence[TrainingEvent], session: TrainingSession, fencing: int) -> None:
        """Store a group of events of one experiment with the session they lead to.

        Raises Stale when the fencing number is no longer the stored one.
        """
        ...

    async def add_groups(self, groups: Sequence[EventGroup]) -> Collection[UUID]:
        """Store groups of several experiments, and say of which.

        Left out are those whose fencing number is no longer the stored one, and those that somebody else changes just
        now: nobody is waited for.
        """
        ...

    async def list_events(self, experiment_id: UUID, after: int, limit: int) -> Sequence[TrainingEvent]: ...

    async def put_session(self, session: TrainingSession) -> None: ...

    async def find_session(self, experiment_id: UUID) -> TrainingSession | None: ...

    async def put_mlflow_run(self, run: MlflowRun) -> None: ...

    async def find_mlflow_run(self, experiment_id: UUID) -> MlflowRun | None: ...

    async def delete(self, experiment_id: UUID, etag: str) -> None: ...


class TrainingQueue(Protocol):
    """Which training is next, and whose it is while it runs."""

    async def claim(self, time: datetime, lease: Lease, per_project: int) -> Experiment | None:
        """Take the next queued experiment, fair between projects, as RUNNING with a new fencing number.

        A project with `per_project` trainings that run, on whatever server, waits. The project with the fewest goes
        first, then the oldest request.
        """
        ...

    async def renew(self, lease: Lease, experiment_ids: Collection[UUID]) -> Sequence[Held]:
        """Prolong the leases of these; those that are missing in the answer were taken over, or have ended."""
        ...

    async def has_abandoned(self, which: Abandoned, running: Collection[UUID]) -> bool:
        """Whether `take_over` may find one."""
        ...

    async def take_over(self, which: Abandoned, running: Collection[UUID]) -> Experiment | None:
        """Take one RUNNING or CANCELLING experiment, none of `running`, from its owner; with a new fencing number."""
        ...


class ModelRepository(Protocol):
    """Models, their versions and aliases."""

    async def add_version(self, version: ModelVersion) -> ModelVersion:
        """Store a version as the next of the model of its name, which is made if it is new.

        `model_id` and `version` of the argument are ignored; the result holds the stored ones.
        """
        ...

    async def put_results(self, version: ModelVersion, results: ModelResults) -> None: ...

    async def find_results(self, version_id: UUID) -> ModelResults | None:
        """None for a version of a release that had none."""
        ...

    async def get_version(self, version_id: UUID, caller: Caller) -> ModelVersion: ...

    async def load_version(self, version_id: UUID) -> ModelVersion:
        """Without a caller: for the server's own work."""
        ...

    async def project_of_version(self, version_id: UUID, caller: Caller) -> UUID:
        """As `get_version`, for calls that need no more than where its files lie."""
        ...

    async def find_version(
        self, project_id: UUID, model_name: str, *, version: int = 0, alias: str = ""
    ) -> ModelVersion | None:
        """By number or alias; the newest if neither is given."""
        ...

    async def get_model(self, project_id: UUID, name: str) -> Model: ...

    async def load_model(self, model_id: UUID) -> Model:
        """Without a caller: for the server's own work."""
        ...

    async def recorded_versions(self, model_id: UUID) -> Sequence[RecordedVersion]:
        """All versions of a model with their MLflow runs, oldest first."""
        ...

    async def ids_of_project(self, project_id: UUID) -> Sequence[UUID]:
        """The models of a project."""
        ...

    async def list(self, project_id: UUID, page: PageRequest) -> Page[Model]: ...

    async def list_versions(
        self, project_id: UUID, page: PageRequest, model_name: str = "", alias: str = ""
    ) -> Page[ModelVersion]: ...

    async def count_of_project(self, project_id: UUID) -> tuple[int, int]:
        """(models, versions)."""
        ...

    async def save_version(self, version: ModelVersion, etag: str) -> None: ...

    async def delete_version(self, version: ModelVersion, etag: str, time: datetime) -> bool:
        """Delete a version, its aliases (whose history ends now), and a model left empty; True if that was so."""
        ...

    async def set_alias(self, version: ModelVersion, alias: str, user_id: UUID, time: datetime) -> None: ...

    async def delete_alias(self, model_id: UUID, alias: str, time: datetime) -> None:
        """Raises NotFound."""
        ...

    async def list_alias_history(
        self, model_id: UUID, page: PageRequest, alias: str = "", at: datetime | None = None
    ) -> Page[AliasHistoryEntry]: ...


class DeploymentRepository(Protocol):
    """Deployments and their revisions."""

    async def add(self, deployment: Deployment) -> None:
        """Raises AlreadyExists."""
        ...

    async def get(self, deployment_id: UUID, caller: Caller) -> Deployment: ...

    async def load(self, deployment_id: UUID) -> Deployment:
        """Without a caller: for the server's own work."""
        ...

    async def find_by_name(self, project_id: UUID, name: str) -> Deployment | None: ...

    async def list(self, project_id: UUID, page: PageRequest) -> Page[Deployment]: ...

    async def unfinished(self) -> Sequence[UUID]:
        """Of all projects, those of which something runs or is to run."""
        ...

    async def serving(self, caller: Caller, most: int) -> Sequence[tuple[Deployment, UUID | None]]:
        """Of all projects that the caller can see, those that are not stopped, with the version that answers."""
        ...

    async def names_serving(self, model_version_id: UUID) -> Sequence[str]:
        """Deployments whose newest or active revision serves this version."""
        ...

    async def save(self, deployment: Deployment, etag: str) -> None:
        """Store a changed deployment. `etag` is the one read before, or empty; raises Stale."""
        ...

    async def delete(self, deployment_id: UUID, etag: str) -> None:
        """Delete a deployment with its revisions. Raises Stale."""
        ...

    async def put_revision(self, revision: Revision) -> None:
        """A new revision, or what became of one: its state and times."""
        ...

    async def revisions(self, deployment_id: UUID, numbers: Collection[int]) -> Sequence[Revision]:
        """Those of these numbers, oldest first."""
        ...

    async def active_before(self, deployment_id: UUID, number: int) -> Revision | None:
        """Of all but the one of this number, the revision that answered last."""
        ...

    async def list_revisions(self, deployment_id: UUID, page: PageRequest) -> Page[Revision]:
        """Newest first."""
        ...


class DeploymentLeases(Protocol):
    """Which server looks after which deployment; leases end by the database's clock."""

    async def waiting(self, *, lapsed: bool) -> Sequence[UUID]:
        """Those that are not stopped and that no server holds; if `lapsed`, also those whose lease has ended."""
        ...

    async def take(self, deployment_id: UUID, lease: Lease, address: str, *, lapsed: bool = False) -> int | None:
        """Hold one of these; its fencing number, or None if it is none. `address` is where this server answers."""
        ...

    async def renew(self, lease: Lease, deployment_ids: Collection[UUID]) -> Sequence[HeldDeployment]:
        """Hold them for longer; those that this server still holds."""
        ...

    async def holds(self, lease: Lease, held: HeldDeployment) -> bool:
        """Whether that is so, and stays so until this unit of work ends, if it is one that writes."""
        ...

    async def address(self, deployment_id: UUID) -> str:
        """Where the server answers that took it last; empty if none did."""
        ...

    async def release(self, lease: Lease, deployment_id: UUID) -> bool:
        """Hold it no longer; False, and it stays held, if it is not stopped."""
        ...

    async def release_all(self, lease: Lease) -> None:
        """Hold none any longer, whatever they do."""
        ...


class RequestRepository(Protocol):
    """Requests that may be repeated."""

    async def find(self, caller: Caller, key: RequestKey, since: datetime) -> UUID | None:
        """The resource that this request made; AlreadyExists (REQUEST_ID_REUSED) if it was another request."""
        ...

    async def add(self, caller: Caller, key: RequestKey, resource_id: UUID, time: datetime) -> None: ...

    async def forget(self, before: datetime) -> None: ...


class AttemptRepository(Protocol):
    """Attempts that are counted, such as those to sign in."""

    async def count(self, counted: str, most: int, within: timedelta, time: datetime) -> datetime | None:
        """Count an attempt of `counted`; if there were `most` already, do not, and return the time of the oldest."""
        ...

    async def forget(self, before: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class Intent:
    """Something to be done outside after the commit, such as recording a run; done at least once."""

    id: int
    kind: str
    subject_id: UUID
    attempts: int = 0


LONGEST_WAIT = timedelta(minutes=2)
"""Nobody puts an intent off for longer: what is due later than this was put off before the clock was set back."""


class Outbox(Protocol):
    """Intents that commit together with the rows they belong to; due is also what waits longer than LONGEST_WAIT."""

    async def add(self, kind: str, subject_id: UUID, time: datetime) -> None: ...

    async def due(self, kinds: Sequence[str], time: datetime, limit: int) -> Sequence[Intent]:
        """The oldest of these kinds."""
        ...

    async def claim(self, kinds: Sequence[str], time: datetime, until: datetime) -> Intent | None:
        """Take the oldest that is due; nobody else does until then, and whoever is at work on it prolongs that.

        What concerns one subject is done in order: an intent waits for earlier ones of its subject.
        """
        ...

    async def prolong(self, intent: Intent, until: datetime) -> None: ...

    async def done(self, intent: Intent) -> None: ...

    async def retry(self, intent: Intent, time: datetime) -> None:
        """Try again at this time."""
        ...

    async def failing(self, kinds: Sequence[str]) -> bool:
        """Whether one of these kinds was tried in vain, and waits."""
        ...

    async def release(self, kinds: Sequence[str], time: datetime) -> None:
        """Everything of these kinds is due: whoever had claimed it lives no more."""
        ...


class VersionRepository(Protocol):
    """Where versions of datasets and models are in DVC."""

    async def put(self, pointer: DvcPointer) -> None: ...

    async def find(self, version_id: UUID) -> DvcPointer | None: ...

    async def delete(self, version_id: UUID) -> None:
        """Nothing there is no error."""
        ...


class UnitOfWork(Protocol):
    """One transaction. Leaving it without commit rolls back."""

    @property
    def users(self) -> UserRepository: ...
    @property
    def projects(self) -> ProjectRepository: ...
    @property
    def datasets(self) -> DatasetRepository: ...
    @property
    def experiments(self) -> ExperimentRepository: ...
    @property
    def queue(self) -> TrainingQueue: ...
    @property
    def models(self) -> ModelRepository: ...
    @property
    def deployments(self) -> DeploymentRepository: ...
    @property
    def deployment_leases(self) -> DeploymentLeases: ...
    @property
    def requests(self) -> RequestRepository: ...
    @property
    def attempts(self) -> AttemptRepository: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def versions(self) -> VersionRepository: ...
    @property
    def pending(self) -> PendingDocuments: ...

    async def commit(self) -> None:
        """Make everything durable."""
        ...


class Store(Protocol):
    """Opens units of work."""

    @property
    def changes(self) -> int | None:
        """Grows with every commit, so that what was read before can be told from old; None where others write too."""
        ...

    async def dvc_remote(self) -> str | None:
        """Where versions are brought for DVC, by whatever server started last."""
        ...

    async def change_dvc_remote(self, url: str, dataset_intent: str, model_intent: str, time: datetime) -> bool:
        """Write it down, with an intent for each version there is; False if it is written already."""
        ...

    def begin(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One that writes; in embedded mode writers wait for each other."""
        ...

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """One that only reads."""
        ...
