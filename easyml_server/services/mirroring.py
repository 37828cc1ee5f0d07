"""Brings models to MLflow's registry, where the settings ask for it: versions, aliases, deletions.

An intent says that a model has changed, and its handler looks what the model is by then. So intents of one model may be
done late, twice, or many at once, and MLflow ends up with what EasyML has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import structlog

from easyml_server.domain.errors import NotFound
from easyml_server.domain.models import Model, RecordedVersion
from easyml_server.domain.projects import Project
from easyml_server.ports.store import Intent, Store, UnitOfWork
from easyml_server.ports.tracker import MirroredModel, MirroredVersion, Tracker
from easyml_server.services.outbox import Handler, take_off

MIRROR_MODEL = "mirror_model"
RESERVED_ALIAS = re.compile(r"v\d+")
"""MLflow keeps these to itself."""
MOST_CHARACTERS = 100

log = structlog.get_logger(__name__)


class Mirroring:
    """Writes down that a model has changed; nothing where models are not to be mirrored."""

    def __init__(self, clock: Callable[[], datetime], *, wanted: bool) -> None:
        self._clock = clock
        self._wanted = wanted

    async def changed(self, work: UnitOfWork, model_ids: Sequence[UUID]) -> None:
        """Versions, descriptions or aliases of these models are others now, or the models are gone."""
        if self._wanted:
            for model_id in model_ids:
                await work.outbox.add(MIRROR_MODEL, model_id, self._clock())

    async def recorded(self, work: UnitOfWork, version_id: UUID) -> None:
        """There is a run now of this version, if it was not deleted meanwhile."""
        if self._wanted:
            with suppress(NotFound):
                await self.changed(work, [(await work.models.load_version(version_id)).model_id])


class ModelMirror:
    """The handler of the intent above."""

    def __init__(self, store: Store, tracker: Tracker) -> None:
        self._store = store
        self._tracker = tracker

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By kind of intent."""
        return {MIRROR_MODEL: self._mirror}

    async def _mirror(self, intent: Intent) -> None:
        await self._tracker.mirror(await self._as_it_is(intent.subject_id))
        await take_off(self._store, intent)

    async def _as_it_is(self, model_id: UUID) -> MirroredModel:
        async with self._store.read() as work:
            try:
                model = await work.models.load_model(model_id)
                project = await work.projects.load(model.project_id)
            except NotFound:
                return MirroredModel(model_id)
            versions = await work.models.recorded_versions(model_id)
        return MirroredModel(
            id=model.id,
            name=registered_name(project, model),
            tags={"easyml.project_id": str(project.id), "easyml.project": project.name, "easyml.model": model.name},
            versions=list(_in_order(versions)),
            aliases=_legal(model),
        )


def registered_name(project: Project, model: Model) -> str:
    """A model's name in MLflow, where all projects share the names: `project-1a2b3c4d.model`.

    It holds letters, digits, and `_.-`. A model's name that had to be changed for that gets the start of its id too,
    since another may become the same.
    """
    name = _plain(model.name)
    if name != model.name:
        name = f"{name}-{str(model.id)[:8]}"
    return f"{_plain(project.name)}-{str(project.id)[:8]}.{name}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:MOST_CHARACTERS]


def _in_order(versions: Sequence[RecordedVersion]) -> Iterator[MirroredVersion]:
    """A version waits for the runs of earlier ones too: MLflow numbers them as they come."""
    waits = False
    for version in versions:
        waits = waits or version.awaits_run
        run_id = None if waits else version.run_id
        yield MirroredVersion(version.id, version.version, version.description, run_id, waits)


def _legal(model: Model) -> Mapping[str, UUID]:
    reserved = [alias.alias for alias in model.aliases if RESERVED_ALIAS.fullmatch(alias.alias)]
    if reserved:
        log.warning("alias_not_mirrored", model_id=str(model.id), aliases=reserved, why="MLflow reserves the name")
    return {alias.alias: alias.model_version_id for alias in model.aliases if alias.alias not in reserved}
