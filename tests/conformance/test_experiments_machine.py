"""Random stories of experiments, their events and what hangs on them: all engines answer alike, and as a dictionary
does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, rule

from easyml_server.domain.datasets import Dataset
from easyml_server.domain.errors import NotFound, Stale
from easyml_server.domain.events import EventBody, IterationCompleted, LogLevel, LogLine, TrainingEvent
from easyml_server.domain.experiments import (
    ConfusionMatrix,
    Experiment,
    Failure,
    FailureKind,
    FailureReason,
    Metric,
    MetricValue,
    Partition,
    TrainingState,
    TrainingWarning,
    TrainingWarningKind,
)
from easyml_server.domain.leases import Abandoned, Lease
from easyml_server.domain.pages import Order, PageRequest
from easyml_server.domain.sessions import MlflowRun, TrainingSession
from easyml_server.domain.users import Caller
from easyml_server.ports.store import EventGroup, ExperimentFilter
from easyml_server.repositories.sql.store import SqlStore
from tests.builders import TIME
from tests.conformance.machines import (
    StoryOfAll,
    etags,
    filters,
    labels,
    names,
    orders,
    rarely,
    sizes,
    tell,
    texts,
    ticks,
)
from tests.unit.services.builders import a_dataset, a_spec, an_experiment

SECOND = timedelta(seconds=1)
PER_PROJECT = 2
algorithms = st.sampled_from(["gaussian_nb", "gaussian_NB", "random_forest"])
floats = st.sampled_from([0.0, -0.0, 0.1, -1e300, 1e16, 5e-324, 1 / 3])
measured = st.lists(
    st.builds(MetricValue, st.sampled_from(Metric), st.sampled_from(Partition), floats, st.none() | floats), max_size=2
).map(tuple)
failures = st.none() | st.builds(Failure, st.sampled_from(FailureKind), st.sampled_from(FailureReason), texts)
warnings = st.lists(st.builds(TrainingWarning, st.sampled_from(TrainingWarningKind), names, texts), max_size=2).map(
    tuple
)
bodies: st.SearchStrategy[EventBody] = st.builds(LogLine, st.sampled_from(LogLevel), texts) | st.builds(
    IterationCompleted, st.integers(1, 9), st.just(9), st.dictionaries(names, floats, max_size=2)
)


@dataclass
class Known:
    """What is known of an experiment."""

    experiment: Experiment
    dataset_id: UUID | None
    owned: bool = False
    events: list[TrainingEvent] = field(default_factory=list)
    session: TrainingSession | None = None
    run: MlflowRun | None = None


class Experiments(StoryOfAll):
    """Experiments of one project on two datasets."""

    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[UUID, Known] = {}
        self.datasets: list[Dataset] = []
        self.clock = TIME

    @initialize()
    def two_datasets(self) -> None:
        for name in ("a", "b"):
            dataset = a_dataset(self.project.id, self.owner.id)
            current = replace(dataset.current, id=self.an_id())
            dataset = replace(dataset, id=self.an_id(), name=name, current=current)
            dataset = replace(dataset, current=replace(current, dataset_id=dataset.id))
            self.told(lambda work: work.datasets.add(dataset))  # noqa: B023 (called at once)
            self.datasets.append(dataset)

    @rule(
        target=made,
        name=names,
        given=labels,
        algorithm=algorithms,
        number=st.integers(0, 1),
        features=st.lists(names, max_size=2).map(tuple),
        passed=ticks,
    )
    def add(
        self, name: str, given: Mapping[str, str], algorithm: str, number: int, features: Any, passed: timedelta
    ) -> UUID:
        self.clock += passed
        dataset = self.datasets[number]
        spec = a_spec(
            dataset_id=dataset.id,
            dataset_version_id=dataset.current.id,
            algorithm=algorithm,
            features=features,
            hyperparameters=dict.fromkeys(features, 1e300),
        )
        experiment = an_experiment(
            self.project.id,
            self.owner.id,
            id=self.an_id(),
            name=name,
            labels=given,
            spec=spec,
            create_time=self.clock,
            update_time=self.clock,
            etag=str(self.an_id()),
        )
        if any(each.id == dataset.id for each in self.existing):
            self.told(lambda work: work.experiments.add(experiment))
            self.model[experiment.id] = Known(experiment, dataset.id)
        else:
            self.refused(lambda work: work.experiments.add(experiment), Stale)
        return experiment.id

    @property
    def existing(self) -> list[Dataset]:
        return [each for each in self.datasets if each.name != "deleted"]

    @rule(number=st.integers(0, 1))
    def delete_dataset(self, number: int) -> None:
        """Its experiments stay."""
        dataset = self.datasets[number]

        async def delete(work: Any) -> None:
            await work.datasets.delete(dataset.id, "")

        if dataset.name == "deleted":
            self.refused(delete, NotFound)
            return
        self.told(delete)
        self.datasets[number] = replace(dataset, name="deleted")
        for known in self.model.values():
            if known.dataset_id == dataset.id:
                known.dataset_id = None

    @rule(identity=made, stranger=rarely)
    def get(self, identity: UUID, stranger: bool) -> None:
        caller = Caller(self.an_id()) if stranger else self.caller
        if identity not in self.model:
            self.refused(lambda work: work.experiments.load(identity), NotFound)
        if stranger or identity not in self.model:
            refused = self.refused(lambda work: work.experiments.get(identity, caller), NotFound)
            assert refused.resource == ("experiment", str(identity))
        else:
            expected = self.placed(identity)
            assert self.told(lambda work: work.experiments.get(identity, caller)) == expected
            assert self.read(lambda work: work.experiments.load(identity)) == expected

    def placed(self, identity: UUID) -> Experiment:
        """With its place in the queue."""
        experiment = self.model[identity].experiment
        if experiment.state is not TrainingState.QUEUED:
            return experiment
        ids = [each.id for each in self.queued]
        return replace(experiment, queue_position=ids.index(identity) + 1)

    @property
    def queued(self) -> list[Experiment]:
        """In the order in which they are claimed."""
        found = [each.experiment for each in self.model.values() if each.experiment.state is TrainingState.QUEUED]
        return in_order(found, Order.OLDEST_FIRST)

    @rule()
    def claim(self) -> None:
        lease, time = Lease(self.an_id()), self.clock
        claimed = self.told(lambda work: work.queue.claim(time, lease, PER_PROJECT))
        taken = [each for each in self.model.values() if each.owned]
        if not self.queued or len(taken) >= PER_PROJECT:
            assert claimed is None
            return
        before = self.queued[0]
        assert claimed == replace(
            before,
            state=TrainingState.RUNNING,
            start_time=before.start_time or time,
            update_time=time,
            etag=claimed.etag,
            fencing=before.fencing + 1,
            attempts=before.attempts + 1,
        )
        self.model[claimed.id].experiment = claimed
        self.model[claimed.id].owned = True

    @rule(which=st.sampled_from(Abandoned))
    def look_for_abandoned(self, which: Abandoned) -> None:
        """All leases last; what runs without one was saved so."""
        states = (TrainingState.RUNNING, TrainingState.CANCELLING)
        taken = {identity for identity, each in self.model.items() if each.experiment.state in states}
        if which is not Abandoned.ALL:
            taken = {identity for identity in taken if not self.model[identity].owned}
        for spared in (set(), taken):
            assert self.read(lambda work: work.queue.has_abandoned(which, spared)) == bool(taken - spared)  # noqa: B023

    @rule(
        identity=made,
        state=st.sampled_from(TrainingState),
        metrics=measured,
        failure=failures,
        warnings=warnings,
        given=labels,
        overtaken=rarely,
        passed=ticks,
    )
    def save(
        self,
        identity: UUID,
        state: TrainingState,
        metrics: Any,
        failure: Failure | None,
        warnings: Any,
        given: Mapping[str, str],
        overtaken: bool,
        passed: timedelta,
    ) -> None:
        self.clock += passed
        known = self.model.get(identity)
        before = known.experiment if known else an_experiment(id=identity)
        changed = replace(
            before,
            state=state,
            labels=given,
            metrics=metrics,
            confusion_matrices=(ConfusionMatrix(("a", "🐧"), (1, 2, 3, 4), Partition.TEST),),
            train_rows=2**40,
            failure=failure,
            warnings=warnings,
            model_version_id=self.an_id(),
            start_time=before.start_time or self.clock,
            end_time=self.clock + SECOND if state.terminal else None,
            update_time=self.clock,
            etag=str(self.an_id()),
            fencing=before.fencing + overtaken,
        )

        async def save(work: Any) -> None:
            await work.experiments.save(changed)

        if known is None:
            self.refused(save, NotFound)
        elif overtaken:
            self.refused(save, Stale)
        else:
            self.told(save)
            known.experiment = changed
            known.owned = known.owned and state in (TrainingState.RUNNING, TrainingState.CANCELLING)

    @rule(
        identity=made,
        group=st.lists(bodies, min_size=1, max_size=4),
        overtaken=rarely,
        again=st.booleans(),
        passed=ticks,
    )
    def add_events(
        self, identity: UUID, group: list[EventBody], overtaken: bool, again: bool, passed: timedelta
    ) -> None:
        """`again`: as after a COMMIT that was not answered."""
        self.clock += passed
        known = self.model.get(identity)
        before = known.experiment if known else an_experiment(id=identity)
        first = before.last_sequence + 1
        events = [TrainingEvent(identity, first + number, self.clock, body) for number, body in enumerate(group)]
        session = TrainingSession(identity, before.state, iteration=events[-1].sequence, values={"a.b$c": 1e300})
        fencing = before.fencing + overtaken

        async def add(work: Any) -> None:
            await work.experiments.add_events(events, session, fencing)

        if known is None or overtaken:
            self.refused(add, Stale)
            return
        for _ in range(1 + again):
            self.told(add)
        known.events += events
        known.session = session
        known.experiment = replace(before, last_sequence=events[-1].sequence)

    @rule(
        identities=st.lists(made, min_size=1, max_size=3, unique=True),
        body=bodies,
        overtaken=st.integers(0, 3),
        again=st.booleans(),
    )
    def add_groups(self, identities: list[UUID], body: EventBody, overtaken: int, again: bool) -> None:
        """Of several at once, one of whom may have been overtaken."""
        groups = []
        for number, identity in enumerate(identities):
            known = self.model.get(identity)
            before = known.experiment if known else an_experiment(id=identity)
            event = TrainingEvent(identity, before.last_sequence + 1, self.clock, body)
            session = TrainingSession(identity, before.state, iteration=event.sequence)
            groups.append(EventGroup([event], session, before.fencing + (number == overtaken)))

        async def add(work: Any) -> Any:
            return sorted(await work.experiments.add_groups(groups))

        stored = [
            group for number, group in enumerate(groups) if group.experiment_id in self.model and number != overtaken
        ]
        for _ in range(1 + again):
            assert self.told(add) == sorted(group.experiment_id for group in stored)
        for group in stored:
            known = self.model[group.experiment_id]
            known.events += group.events
            known.session = group.session
            known.experiment = replace(known.experiment, last_sequence=group.events[-1].sequence)

    @rule(identity=made, after=st.integers(0, 9), limit=st.integers(1, 5))
    def list_events(self, identity: UUID, after: int, limit: int) -> None:
        known = self.model.get(identity)
        expected = [] if known is None else [each for each in known.events if each.sequence > after][:limit]
        assert self.read(lambda work: work.experiments.list_events(identity, after, limit)) == expected

    @rule(identity=made, iteration=st.integers(0, 2**31), update_time=st.none() | st.just(TIME))
    def put_session(self, identity: UUID, iteration: int, update_time: Any) -> None:
        session = TrainingSession(identity, TrainingState.RUNNING, iteration=iteration, update_time=update_time)
        known = self.model.get(identity)
        if known is None:
            self.refused(lambda work: work.experiments.put_session(session), NotFound)
        else:
            self.told(lambda work: work.experiments.put_session(session))
            known.session = session

    @rule(identity=made, name=names)
    def put_mlflow_run(self, identity: UUID, name: str) -> None:
        run = MlflowRun(identity, name, name, name[:64], name, name, self.clock, name or None)
        known = self.model.get(identity)
        if known is None:
            self.refused(lambda work: work.experiments.put_mlflow_run(run), NotFound)
        else:
            self.told(lambda work: work.experiments.put_mlflow_run(run))
            known.run = run
            known.experiment = replace(known.experiment, mlflow_run_id=run.run_id)

    @rule(identity=consumes(made), etag=etags)
    def delete(self, identity: UUID, etag: str) -> None:
        known = self.model.get(identity)
        etag = known.experiment.etag if known and etag == "its" else etag

        async def delete(work: Any) -> None:
            await work.experiments.delete(identity, etag)

        if known is None:
            self.refused(delete, NotFound)
        elif etag not in ("", known.experiment.etag):
            self.refused(delete, Stale)
        else:
            self.told(delete)
            del self.model[identity]

            async def left(work: Any) -> Any:
                return (
                    await work.experiments.list_events(identity, 0, 9),
                    await work.experiments.find_session(identity),
                    await work.experiments.find_mlflow_run(identity),
                )

            assert self.read(left) == ([], None, None)

    @rule(
        given=filters,
        states=st.sets(st.sampled_from(TrainingState), max_size=2),
        number=st.none() | st.integers(0, 1),
        algorithm=algorithms | st.just(""),
        size=sizes,
        order=orders,
    )
    def list_(
        self,
        given: Mapping[str, str],
        states: set[TrainingState],
        number: int | None,
        algorithm: str,
        size: int,
        order: Order,
    ) -> None:
        dataset_id = None if number is None else self.datasets[number].id
        only = ExperimentFilter(tuple(sorted(states)), dataset_id, algorithm)
        request = PageRequest(size=size, order=order, labels=given)
        found = self.pages(request, lambda work, page: work.experiments.list(self.project.id, page, only))
        wanted = [
            each.experiment
            for each in self.model.values()
            if (not states or each.experiment.state in states)
            and dataset_id in (None, each.dataset_id)
            and algorithm in ("", each.experiment.spec.algorithm)
            and given.items() <= each.experiment.labels.items()
        ]
        assert found == in_order(wanted, order)

    @rule(algorithm=algorithms)
    def durations(self, algorithm: str) -> None:
        found = self.read(lambda work: work.experiments.durations(algorithm, self.project.id))
        ended = [
            each.experiment
            for each in self.model.values()
            if each.experiment.state is TrainingState.SUCCEEDED and each.experiment.spec.algorithm == algorithm
        ]
        assert found == [
            (each.train_rows + each.test_rows, (each.end_time - each.start_time).total_seconds())
            for each in in_order(ended, Order.NEWEST_FIRST)
            if each.start_time and each.end_time
        ]

    @invariant()
    def everything_is_as_it_was_stored(self) -> None:
        async def look(work: Any) -> Any:
            listed = (await work.experiments.list(self.project.id, PageRequest(), ExperimentFilter())).items
            hanging = [
                (
                    await work.experiments.list_events(each.id, 0, 1_000),
                    await work.experiments.find_session(each.id),
                    await work.experiments.find_mlflow_run(each.id),
                )
                for each in listed
            ]
            counts = [await work.experiments.count_active(each) for each in (None, self.project.id, self.owner.id)]
            of_datasets = [
                await work.experiments.count_of_dataset(each.id, active=active)
                for each in self.datasets
                for active in (False, True)
            ]
            return listed, hanging, counts, of_datasets, await work.experiments.count_of_project(self.project.id)

        experiments = in_order([each.experiment for each in self.model.values()], Order.NEWEST_FIRST)
        known = [self.model[each.id] for each in experiments]
        active = [each for each in known if not each.experiment.state.terminal]
        assert self.read(look) == (
            tuple(experiments),
            [(each.events, each.session, each.run) for each in known],
            [len(active), len(active), 0],
            [
                sum(each.dataset_id == dataset.id for each in counted)
                for dataset in self.datasets
                for counted in (known, active)
            ],
            len(known),
        )


def in_order(items: Iterable[Experiment], order: Order) -> list[Experiment]:
    """By time, whatever is asked for; equal times by id."""
    return sorted(items, key=lambda each: (each.create_time, each.id), reverse=order is Order.NEWEST_FIRST)


@pytest.mark.slow
def test_experiments_answer_as_a_dictionary(stores: Mapping[str, SqlStore], runner: asyncio.Runner) -> None:
    tell(Experiments, examples=4, steps=20, stores=stores, runner=runner)
