"""Experiments as rows; the live session and the MLflow record as documents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    Row,
    String,
    Table,
    bindparam,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from easyml_server.domain import experiments as domain
from easyml_server.domain.errors import NotFound, Stale
from easyml_server.domain.events import TrainingEvent
from easyml_server.domain.experiments import TrainingState
from easyml_server.domain.pages import Page, PageRequest
from easyml_server.domain.sessions import MlflowRun, TrainingSession
from easyml_server.domain.users import Caller
from easyml_server.ports.store import EventGroup, ExperimentFilter
from easyml_server.repositories.documents.models import MLflowMetadataDocument, ModelSessionDocument
from easyml_server.repositories.documents.port import Documents
from easyml_server.repositories.sql.base import (
    Base,
    JsonType,
    UtcDateTime,
    locked,
    one_of,
    ordered,
    paged,
    to_json,
    with_floats,
    with_labels,
)
from easyml_server.repositories.sql.events import insert_events, select_events
from easyml_server.repositories.sql.projects import IDENTITY, Project, find_visible

_SPEC = TypeAdapter(domain.TrainingSpec)
_METRICS = TypeAdapter(tuple[domain.MetricValue, ...])
_CONFUSION = TypeAdapter(tuple[domain.ConfusionMatrix, ...])
_WARNINGS = TypeAdapter(tuple[domain.TrainingWarning, ...])
_FAILURE = TypeAdapter(domain.Failure)
_ACTIVE = tuple(state.value for state in TrainingState if not state.terminal)
TAKEN = (TrainingState.RUNNING, TrainingState.CANCELLING)
"""States in which somebody may be at work on it."""
_DURATIONS = 20


class MLExperiment(Base):
    """One training request and its outcome.

    `attempts` counts claims. `fencing` grows when it is claimed and when it is taken over: a write with an older number
    is refused. `owner` is the server that runs it, until `lease_until` by the database's clock.
    """

    __tablename__ = "ml_experiments"
    __table_args__ = (
        Index("ix_ml_experiments_project_id_create_time", "project_id", "create_time", "id"),
        Index("ix_ml_experiments_project_id_state", "project_id", "state", "create_time", "id"),
        Index("ix_ml_experiments_project_id_algorithm", "project_id", "algorithm", "create_time", "id"),
        Index("ix_ml_experiments_dataset_id", "dataset_id", "create_time", "id"),
        Index("ix_ml_experiments_state_create_time", "state", "create_time"),
        CheckConstraint(one_of("state", list(TrainingState)), name="state"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    name: Mapped[str] = mapped_column(String(255))
    labels: Mapped[Mapping[str, str]] = mapped_column(JsonType)
    state: Mapped[str] = mapped_column(String(16))
    algorithm: Mapped[str] = mapped_column(String(64))
    spec: Mapped[Any] = mapped_column(JsonType)
    dataset_name: Mapped[str] = mapped_column(String(255))
    dataset_sha256: Mapped[str] = mapped_column(String(64))
    metrics: Mapped[Any] = mapped_column(JsonType)
    confusion_matrices: Mapped[Any] = mapped_column(JsonType)
    train_rows: Mapped[int] = mapped_column(BigInteger)
    test_rows: Mapped[int] = mapped_column(BigInteger)
    split_sha256: Mapped[str] = mapped_column(String(64))
    model_version_id: Mapped[UUID | None]
    failure: Mapped[Any | None] = mapped_column(JsonType)
    warnings: Mapped[Any] = mapped_column(JsonType)
    last_sequence: Mapped[int] = mapped_column(BigInteger)
    mlflow_run_id: Mapped[str] = mapped_column(String(64))
    creator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="RESTRICT"))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime)
    start_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    end_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    etag: Mapped[str] = mapped_column(String(64))
    fencing: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer, server_default="0")
    owner: Mapped[UUID | None]
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


def experiment_of(row: MLExperiment | Row[Any], queue_position: int = 0) -> domain.Experiment:
    """The row in the words of the business."""
    return domain.Experiment(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        labels=dict(row.labels),
        state=TrainingState(row.state),
        spec=_SPEC.validate_python({**row.spec, "hyperparameters": with_floats(row.spec["hyperparameters"])}),
        dataset_name=row.dataset_name,
        dataset_sha256=row.dataset_sha256,
        creator_id=row.creator_id,
        create_time=row.create_time,
        update_time=row.update_time,
        etag=row.etag,
        metrics=_METRICS.validate_python(row.metrics),
        confusion_matrices=_CONFUSION.validate_python(row.confusion_matrices),
        train_rows=row.train_rows,
        test_rows=row.test_rows,
        split_sha256=row.split_sha256,
        model_version_id=row.model_version_id,
        failure=None if row.failure is None else _FAILURE.validate_python(row.failure),
        warnings=_WARNINGS.validate_python(row.warnings),
        last_sequence=row.last_sequence,
        queue_position=queue_position,
        mlflow_run_id=row.mlflow_run_id,
        start_time=row.start_time,
        end_time=row.end_time,
        fencing=row.fencing,
        attempts=row.attempts,
    )


def _fill(row: MLExperiment, experiment: domain.Experiment) -> None:
    """Copy what changes in the life of an experiment."""
    row.name = experiment.name
    row.labels = dict(experiment.labels)
    row.state = experiment.state.value
    row.metrics = to_json(_METRICS, experiment.metrics)
    row.confusion_matrices = to_json(_CONFUSION, experiment.confusion_matrices)
    row.train_rows = experiment.train_rows
    row.test_rows = experiment.test_rows
    row.split_sha256 = experiment.split_sha256
    row.model_version_id = experiment.model_version_id
    row.failure = None if experiment.failure is None else to_json(_FAILURE, experiment.failure)
    row.warnings = to_json(_WARNINGS, experiment.warnings)
    row.mlflow_run_id = experiment.mlflow_run_id
    row.start_time = experiment.start_time
    row.end_time = experiment.end_time
    row.update_time = experiment.update_time
    row.etag = experiment.etag
    if experiment.state not in TAKEN:
        row.owner = row.lease_until = None


_ONE = select(MLExperiment).where(MLExperiment.id == IDENTITY)
_VISIBLE = _ONE.join(Project, Project.id == MLExperiment.project_id)


class SqlExperimentRepository:
    """Fulfils `ports.store.ExperimentRepository`."""

    def __init__(self, session: AsyncSession, documents: Documents) -> None:
        self._session = session
        self._documents = documents

    async def add(self, experiment: domain.Experiment) -> None:
        """Store a new experiment."""
        row = MLExperiment(
            id=experiment.id,
            project_id=experiment.project_id,
            dataset_id=experiment.spec.dataset_id,
            algorithm=experiment.spec.algorithm,
            spec=to_json(_SPEC, experiment.spec),
            dataset_name=experiment.dataset_name,
            dataset_sha256=experiment.dataset_sha256,
            creator_id=experiment.creator_id,
            create_time=experiment.create_time,
            fencing=experiment.fencing,
            attempts=experiment.attempts,
            last_sequence=experiment.last_sequence,
        )
        _fill(row, experiment)
        self._session.add(row)
        await self._session.flush()

    async def get(self, experiment_id: UUID, caller: Caller) -> domain.Experiment:
        """Only what the caller can see; the role is held against what the method needs."""
        found = await find_visible(self._session, _VISIBLE, experiment_id, caller, "experiment", of=MLExperiment)
        return experiment_of(found[0], await self._queue_position(found[0]))

    async def load(self, experiment_id: UUID) -> domain.Experiment:
        """Without a caller."""
        row = await self._locked(experiment_id)
        return experiment_of(row, await self._queue_position(row))

    async def list(self, project_id: UUID, page: PageRequest, only: ExperimentFilter) -> Page[domain.Experiment]:
        """The experiments of a project."""
        # Columns instead of objects, which a page of many would be slowed by.
        statement = select(MLExperiment.__table__).where(MLExperiment.project_id == project_id)
        if only.states:
            statement = statement.where(MLExperiment.state.in_([state.value for state in only.states]))
        if only.dataset_id is not None:
            statement = statement.where(MLExperiment.dataset_id == only.dataset_id)
        if only.algorithm:
            statement = statement.where(MLExperiment.algorithm == only.algorithm)
        statement = with_labels(statement, MLExperiment.labels, page)
        statement = ordered(statement, page, MLExperiment.create_time, MLExperiment.id)
        rows = (await self._session.execute(statement)).all()
        return paged(rows, page, experiment_of, lambda row: (row.create_time.isoformat(), str(row.id)))

    async def save(self, experiment: domain.Experiment) -> None:
        """Compare the fencing number in the same transaction that writes."""
        row = await self._locked(experiment.id)
        if row.fencing != experiment.fencing:
            raise Stale("Another server has taken this training over.")
        _fill(row, experiment)
        await self._session.flush()

    async def count_active(self, project_id: UUID | None) -> int:
        """Those that have not ended."""
        statement = select(func.count()).select_from(MLExperiment).where(MLExperiment.state.in_(_ACTIVE))
        if project_id is not None:
            statement = statement.where(MLExperiment.project_id == project_id)
        return await self._session.scalar(statement) or 0

    async def count_of_project(self, project_id: UUID) -> int:
        """All experiments of a project."""
        statement = select(func.count()).select_from(MLExperiment).where(MLExperiment.project_id == project_id)
        return await self._session.scalar(statement) or 0

    async def count_of_dataset(self, dataset_id: UUID, *, active: bool) -> int:
        """Experiments that refer to a dataset."""
        statement = select(func.count()).select_from(MLExperiment).where(MLExperiment.dataset_id == dataset_id)
        if active:
            statement = statement.where(MLExperiment.state.in_(_ACTIVE))
        return await self._session.scalar(statement) or 0

    async def durations(self, algorithm: str, project_id: UUID) -> Sequence[tuple[int, float]]:
        """Of the project only: how long others train is theirs to know."""
        statement = (
            select(MLExperiment)
            .where(
                MLExperiment.algorithm == algorithm,
                MLExperiment.project_id == project_id,
                MLExperiment.state == TrainingState.SUCCEEDED.value,
            )
            .order_by(MLExperiment.create_time.desc(), MLExperiment.id.desc())
            .limit(_DURATIONS)
        )
        rows = (await self._session.scalars(statement)).all()
        return [
            (row.train_rows + row.test_rows, (row.end_time - row.start_time).total_seconds())
            for row in rows
            if row.start_time and row.end_time
        ]

    async def add_events(self, events: Sequence[TrainingEvent], session: TrainingSession, fencing: int) -> None:
        """The fencing number is compared by the statement that moves the sequence on."""
        moved = await self._session.execute(
            update(MLExperiment)
            .where(MLExperiment.id == session.experiment_id, MLExperiment.fencing == fencing)
            .values(last_sequence=events[-1].sequence)
            .returning(MLExperiment.project_id)
        )
        project_id = moved.scalar_one_or_none()
        if project_id is None:
            raise Stale("Another server has taken this training over.")
        await self._documents.put(ModelSessionDocument.of(session), project_id)
        await insert_events(self._session, events)

    async def add_groups(self, groups: Sequence[EventGroup]) -> Collection[UUID]:
        """Rows that somebody else holds are passed over, and the others held until the end."""
        held = await self._session.execute(
            select(MLExperiment.id, MLExperiment.project_id, MLExperiment.fencing)
            .where(MLExperiment.id.in_([group.experiment_id for group in groups]))
            .with_for_update(key_share=True, skip_locked=True)
        )
        rows = {row.id: row for row in held}
        free = [
            (group, rows[group.experiment_id].project_id)
            for group in groups
            if group.experiment_id in rows and rows[group.experiment_id].fencing == group.fencing
        ]
        if free:
            await self._session.execute(
                update(cast(Table, MLExperiment.__table__))
                .where(MLExperiment.id == bindparam("experiment"))
                .values(last_sequence=bindparam("sequence")),
                [{"experiment": each.experiment_id, "sequence": each.events[-1].sequence} for each, _ in free],
            )
            await self._documents.put_all(
                [(ModelSessionDocument.of(each.session), project_id) for each, project_id in free]
            )
            await insert_events(self._session, [event for each, _ in free for event in each.events])
        return {each.experiment_id for each, _ in free}

    async def list_events(self, experiment_id: UUID, after: int, limit: int) -> Sequence[TrainingEvent]:
        """Oldest first."""
        return await select_events(self._session, experiment_id, after, limit)

    async def put_session(self, session: TrainingSession) -> None:
        """Insert or replace the live session."""
        row = await self._locked(session.experiment_id)
        await self._documents.put(ModelSessionDocument.of(session), row.project_id)

    async def find_session(self, experiment_id: UUID) -> TrainingSession | None:
        """The live session."""
        document = await self._documents.find(ModelSessionDocument, experiment_id)
        return None if document is None else document.to_domain()

    async def put_mlflow_run(self, run: MlflowRun) -> None:
        """The document, and the run's id in the row."""
        row = await self._locked(run.experiment_id)
        row.mlflow_run_id = run.run_id
        await self._documents.put(MLflowMetadataDocument.of(run), row.project_id)

    async def find_mlflow_run(self, experiment_id: UUID) -> MlflowRun | None:
        """Where the experiment was recorded."""
        document = await self._documents.find(MLflowMetadataDocument, experiment_id)
        return None if document is None else document.to_domain()

    async def delete(self, experiment_id: UUID, etag: str) -> None:
        """Its events go by foreign key."""
        row = await self._locked(experiment_id)
        if etag and etag != row.etag:
            raise Stale("The experiment was changed by somebody else; read it again, then repeat your change.")
        await self._documents.delete(experiment_id)
        await self._session.delete(row)
        await self._session.flush()

    async def _locked(self, experiment_id: UUID) -> MLExperiment:
        statement = locked(self._session, _ONE, MLExperiment)
        row: MLExperiment | None = await self._session.scalar(statement, {IDENTITY.key: experiment_id})
        if row is None:
            raise NotFound.of("experiment", experiment_id)
        return row

    async def _queue_position(self, row: MLExperiment) -> int:
        if row.state != TrainingState.QUEUED.value:
            return 0
        # In the order in which they are claimed.
        place = tuple_(literal(row.create_time, UtcDateTime()), literal(row.id, MLExperiment.id.type))
        statement = (
            select(func.count())
            .select_from(MLExperiment)
            .where(
                MLExperiment.state == TrainingState.QUEUED.value,
                tuple_(MLExperiment.create_time, MLExperiment.id) < place,
            )
        )
        return (await self._session.scalar(statement) or 0) + 1
