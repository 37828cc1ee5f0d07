"""What every store promises, whatever is below."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest

from easyml_server.domain.deployments import (
    Condition,
    ConditionType,
    Deployment,
    DeploymentConfig,
    DeploymentEnvironment,
    DeploymentState,
    Probes,
    Replica,
    ReplicaFailure,
    ReplicaFailureReason,
    ReplicaState,
)
from easyml_server.domain.errors import AlreadyExists, EasyMLError, NotAllowed, NotFound, Reason, Stale
from easyml_server.domain.events import LogLevel, LogLine, TrainingEvent
from easyml_server.domain.experiments import Experiment, TrainingState
from easyml_server.domain.leases import Lease
from easyml_server.domain.models import ModelVersion
from easyml_server.domain.pages import Order, PageRequest
from easyml_server.domain.projects import Project, Role
from easyml_server.domain.requests import RequestKey
from easyml_server.domain.sessions import TrainingSession
from easyml_server.domain.users import Caller, Permission, User
from easyml_server.ports.store import LONGEST_WAIT, EventGroup, ExperimentFilter, Store
from tests.builders import TIME, a_config, a_project, a_user
from tests.unit.services.builders import a_dataset, a_deployment, a_revision, a_spec, a_version, an_experiment

DAY = timedelta(days=1)
LEASE = Lease(uuid4())
ODD_TEXTS = ["O'Brien; DROP TABLE users", "100 %_\\", "naïve 日本 🐧", '{"a": "b"}', "a.b$c", "line\nbreak"]


async def with_user(store: Store, **changes: Any) -> User:
    user = a_user(**changes)
    async with store.begin() as work:
        await work.users.add(user)
        await work.commit()
    return user


async def with_project(store: Store, creator: User | None = None, **changes: Any) -> Project:
    creator = creator or await with_user(store)
    project = a_project(creator.id, **changes)
    async with store.begin() as work:
        await work.projects.add(project, a_config(project))
        await work.commit()
    return project


async def with_experiments(store: Store, project: Project, count: int = 1, **changes: Any) -> list[Experiment]:
    dataset = replace(a_dataset(project.id, project.creator_id), name=f"table {uuid4()}")
    spec = a_spec(dataset_id=dataset.id, dataset_version_id=dataset.current.id)
    made = [
        an_experiment(
            project.id, project.creator_id, spec=spec, create_time=TIME + timedelta(seconds=number), **changes
        )
        for number in range(count)
    ]
    async with store.begin() as work:
        await work.datasets.add(dataset)
        for experiment in made:
            await work.experiments.add(experiment)
        await work.commit()
    return made


def owner_of(project: Project, needs: Permission = Permission.OWNER) -> Caller:
    return Caller(project.creator_id, needs=needs)


async def at_once(*calls: Any) -> tuple[list[Any], list[BaseException]]:
    """Answers and errors of calls that run at the same time."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    return [result for result in results if not isinstance(result, BaseException)], errors


# Units of work.


async def test_what_was_rolled_back_was_never_there(store: Store) -> None:
    user = await with_user(store)
    async with store.begin() as work:
        project = a_project(user.id)
        await work.projects.add(project, a_config(project))
    async with store.read() as work:
        with pytest.raises(NotFound):
            await work.projects.load(project.id)


async def test_an_error_rolls_everything_back(store: Store) -> None:
    user = await with_user(store)
    project = a_project(user.id)
    with pytest.raises(AlreadyExists):
        async with store.begin() as work:
            await work.projects.add(project, a_config(project))
            await work.users.add(a_user(email=user.email))
    async with store.read() as work:
        with pytest.raises(NotFound):
            await work.projects.load(project.id)


async def test_a_reader_sees_one_moment(store: Store) -> None:
    project = await with_project(store, name="before")
    async with store.read() as reading:
        await reading.projects.load(project.id)
        async with store.begin() as work:
            await work.projects.save(replace(project, name="after", etag=uuid4().hex), project.etag)
            await work.commit()
        members = await reading.projects.list(owner_of(project), PageRequest())
    assert [each.name for each in members.items] == ["before"]


# Changes that meet.


async def test_of_two_changes_with_one_etag_one_wins(store: Store) -> None:
    project = await with_project(store)

    async def rename(name: str) -> str:
        async with store.begin() as work:
            found = await work.projects.get(project.id, owner_of(project))
            await work.projects.save(replace(found, name=name, etag=uuid4().hex), project.etag)
            await work.commit()
        return name

    won, lost = await at_once(rename("a"), rename("b"))
    assert (len(won), [type(error) for error in lost]) == (1, [Stale])
    async with store.read() as work:
        assert (await work.projects.load(project.id)).name == won[0]


async def test_changes_of_different_fields_lose_nothing(store: Store) -> None:
    project = await with_project(store, labels={})

    async def label(number: int) -> None:
        async with store.begin() as work:
            found = await work.projects.get(project.id, owner_of(project))
            labels = {**found.labels, f"label {number}": "there"}
            await work.projects.save(replace(found, labels=labels, etag=uuid4().hex), "")
            await work.commit()

    _, lost = await at_once(*(label(number) for number in range(10)))
    assert lost == []
    async with store.read() as work:
        assert len((await work.projects.load(project.id)).labels) == 10


async def test_a_name_is_given_once(store: Store) -> None:
    creator = await with_user(store)
    _, lost = await at_once(*(with_project(store, creator, name="iris") for _ in range(6)))
    assert {type(error) for error in lost} == {AlreadyExists}
    assert len(lost) == 5


async def test_a_request_makes_one_thing_however_often_it_comes_at_once(store: Store) -> None:
    creator = await with_user(store)
    key, caller = RequestKey(uuid4(), "CreateProject", "0" * 64), Caller(creator.id)

    async def create() -> Any:
        async with store.begin() as work:
            found = await work.requests.find(caller, key, TIME - DAY)
            if found is not None:
                return found
            project = a_project(creator.id)
            await work.projects.add(project, a_config(project))
            await work.requests.add(caller, key, project.id, TIME)
            await work.commit()
        return project.id

    made, lost = await at_once(*(create() for _ in range(12)))
    assert lost == []
    assert len(set(made)) == 1


async def test_a_request_id_serves_no_other_request_and_is_forgotten(store: Store) -> None:
    creator = await with_user(store)
    key, caller = RequestKey(uuid4(), "CreateProject", "0" * 64), Caller(creator.id)
    async with store.begin() as work:
        await work.requests.add(caller, key, uuid4(), TIME)
        await work.commit()
    async with store.begin() as work:
        with pytest.raises(AlreadyExists) as refused:
            await work.requests.find(caller, replace(key, fingerprint="1" * 64), TIME - DAY)
        assert refused.value.reason is Reason.REQUEST_ID_REUSED
        assert await work.requests.find(caller, key, TIME + DAY) is None


# Text and time.


@pytest.mark.parametrize("text", ODD_TEXTS)
async def test_any_text_comes_back_as_it_was(store: Store, text: str) -> None:
    project = await with_project(store, name=text, description=text, labels={text: text})
    async with store.read() as work:
        found = await work.projects.get(project.id, owner_of(project))
        listed = await work.projects.list(owner_of(project), PageRequest(name_prefix=text[:3], labels={text: text}))
    assert (found.name, found.description, dict(found.labels)) == (text, text, {text: text})
    assert [each.id for each in listed.items] == [project.id]


async def test_the_longest_text_comes_back_as_it_was_whatever_its_bytes(store: Store) -> None:
    name, description, label = "🐧" * 255, "🐧" * 4000, "🐧" * 63
    project = await with_project(store, name=name, description=description, labels={label: name})
    async with store.read() as work:
        found = await work.projects.get(project.id, owner_of(project))
        listed = await work.projects.list(owner_of(project), PageRequest(name_prefix=name, labels={label: name}))
    assert (found.name, found.description, dict(found.labels)) == (name, description, {label: name})
    assert [each.id for each in listed.items] == [project.id]


async def test_a_time_comes_back_in_utc_to_the_microsecond(store: Store) -> None:
    time = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    user = await with_user(store, create_time=time)
    async with store.read() as work:
        found = (await work.users.get(user.id)).create_time
    assert (found, found.tzinfo) == (time, UTC)


# Who sees what.


async def test_a_project_is_there_for_its_members_only(store: Store) -> None:
    project, stranger = await with_project(store), await with_user(store)
    viewer = await with_user(store)
    async with store.begin() as work:
        await work.projects.set_member(project.id, viewer.id, Role.VIEWER, TIME)
        await work.commit()
    async with store.read() as work:
        with pytest.raises(NotFound):
            await work.projects.get(project.id, Caller(stranger.id))
        assert (await work.projects.get(project.id, Caller(viewer.id))).role is Role.VIEWER
        with pytest.raises(NotAllowed):
            await work.projects.get(project.id, Caller(viewer.id, needs=Permission.EDITOR))
        assert not (await work.projects.list(Caller(stranger.id), PageRequest())).items


# Lists.


async def pages(store: Store, caller: Caller, request: PageRequest) -> list[Sequence[Project]]:
    found = []
    while True:
        async with store.read() as work:
            page = await work.projects.list(caller, request)
        found.append(page.items)
        if page.next is None:
            return found
        request = replace(request, after=page.next)


@pytest.mark.parametrize("order", list(Order))
async def test_pages_hold_everything_once_in_order(store: Store, order: Order) -> None:
    creator = await with_user(store)
    # Times are equal in pairs, so that the id decides; names sort by code point.
    names = ["b", "B", "a", "é", "a1", "Z", "日本"]
    for number, name in enumerate(names):
        await with_project(store, creator, name=name, create_time=TIME + timedelta(seconds=number // 2))
    found = await pages(store, Caller(creator.id), PageRequest(size=2, order=order))
    assert [len(page) for page in found] == [2, 2, 2, 1]
    flat = [project for page in found for project in page]
    keys: dict[Order, Any] = {
        Order.NEWEST_FIRST: lambda project: (project.create_time, str(project.id)),
        Order.OLDEST_FIRST: lambda project: (project.create_time, str(project.id)),
        Order.BY_NAME: lambda project: (project.name, str(project.id)),
    }
    assert flat == sorted(flat, key=keys[order], reverse=order is Order.NEWEST_FIRST)
    assert {project.name for project in flat} == set(names)


async def test_experiments_are_narrowed_by_state_algorithm_and_labels(store: Store) -> None:
    project = await with_project(store)
    wanted = (await with_experiments(store, project, labels={"team": "blue"}))[0]
    await with_experiments(store, project, labels={"team": "red"})
    await with_experiments(store, project, state=TrainingState.FAILED, labels={"team": "blue"})
    only = ExperimentFilter(states=(TrainingState.QUEUED,), algorithm="gaussian_nb")
    async with store.read() as work:
        found = await work.experiments.list(project.id, PageRequest(labels={"team": "blue"}), only)
    assert [each.id for each in found.items] == [wanted.id]


# Trainings.


async def test_trainings_asked_for_in_one_moment_have_places_of_their_own_in_the_queue(store: Store) -> None:
    project = await with_project(store)
    for _ in range(4):
        await with_experiments(store, project)
    async with store.read() as work:
        listed = (await work.experiments.list(project.id, PageRequest(), ExperimentFilter())).items
        places = {(await work.experiments.load(each.id)).queue_position: each.id for each in listed}
    assert sorted(places) == [1, 2, 3, 4]
    async with store.begin() as work:
        claimed = [await work.queue.claim(TIME, LEASE, 100) for _ in places]
    assert [each.id for each in claimed if each is not None] == [places[place] for place in sorted(places)]


async def test_each_training_is_claimed_once(store: Store) -> None:
    project = await with_project(store)
    queued = await with_experiments(store, project, 6)

    async def claim() -> Experiment | None:
        async with store.begin() as work:
            found = await work.queue.claim(TIME, LEASE, 100)
            await work.commit()
        return found

    claimed: list[Experiment | None] = []
    while len([each for each in claimed if each is not None]) < len(queued):
        found, lost = await at_once(*(claim() for _ in range(4)))
        assert lost == []
        claimed += found
    assert sorted(each.id for each in claimed if each is not None) == sorted(each.id for each in queued)
    assert await claim() is None
    assert {each.fencing for each in claimed if each is not None} == {1}


async def test_the_project_with_the_fewest_trainings_goes_first(store: Store) -> None:
    busy, idle = await with_project(store), await with_project(store)
    first, second, third = await with_experiments(store, busy, 3)
    waiting = (await with_experiments(store, idle))[0]
    claimed = []
    async with store.begin() as work:
        while (found := await work.queue.claim(TIME, Lease(uuid4()), 2)) is not None:
            claimed.append(found.id)
        await work.commit()
    # Whichever server runs them: the third waits, for its project has two.
    assert (set(claimed[:2]), claimed[2:]) == ({first.id, waiting.id}, [second.id])
    async with store.read() as work:
        assert (await work.experiments.load(third.id)).state is TrainingState.QUEUED


def events_of(experiment: Experiment, first: int, count: int) -> list[TrainingEvent]:
    return [
        TrainingEvent(experiment.id, first + number, TIME, LogLine(LogLevel.INFO, f"line {first + number} 🐧"))
        for number in range(count)
    ]


async def test_events_come_back_in_order_from_anywhere(store: Store) -> None:
    experiment = (await with_experiments(store, await with_project(store)))[0]
    session = TrainingSession(experiment.id, TrainingState.RUNNING)
    for first in (1, 4):
        async with store.begin() as work:
            await work.experiments.add_events(events_of(experiment, first, 3), session, experiment.fencing)
            await work.commit()
    async with store.read() as work:
        assert await work.experiments.list_events(experiment.id, 2, 3) == events_of(experiment, 3, 3)
        assert (await work.experiments.load(experiment.id)).last_sequence == 6
        assert await work.experiments.find_session(experiment.id) == session


async def test_who_was_overtaken_writes_nothing(store: Store) -> None:
    project = await with_project(store)
    old = (await with_experiments(store, project))[0]
    async with store.begin() as work:
        assert await work.queue.claim(TIME, LEASE, 1) is not None
        await work.commit()
    session = TrainingSession(old.id, TrainingState.RUNNING)
    for write in (
        lambda work: work.experiments.save(replace(old, state=TrainingState.FAILED)),
        lambda work: work.experiments.add_events(events_of(old, 1, 1), session, old.fencing),
    ):
        with pytest.raises(Stale):
            async with store.begin() as work:
                await write(work)
                await work.commit()
    async with store.read() as work:
        assert (await work.experiments.load(old.id)).state is TrainingState.RUNNING
        assert await work.experiments.list_events(old.id, 0, 10) == []


def a_group(experiment: Experiment, first: int, count: int, **changes: Any) -> EventGroup:
    session = TrainingSession(experiment.id, TrainingState.RUNNING, iteration=first + count - 1)
    return replace(EventGroup(events_of(experiment, first, count), session, experiment.fencing), **changes)


async def add_groups(store: Store, *groups: EventGroup) -> set[UUID]:
    async with store.begin() as work:
        stored = await work.experiments.add_groups(groups)
        await work.commit()
    return set(stored)


async def stored_of(store: Store, experiment: Experiment) -> tuple[list[int], int, TrainingSession | None]:
    async with store.read() as work:
        events = await work.experiments.list_events(experiment.id, 0, 100)
        last = (await work.experiments.load(experiment.id)).last_sequence
        return [event.sequence for event in events], last, await work.experiments.find_session(experiment.id)


async def test_groups_of_several_trainings_are_stored_together(store: Store) -> None:
    project, another = await with_project(store), await with_project(store)
    experiments = [*await with_experiments(store, project, 2), *await with_experiments(store, another)]
    for first in (1, 4):
        groups = [a_group(each, first, 3) for each in experiments]
        assert await add_groups(store, *groups) == {each.id for each in experiments}
    # As after a COMMIT that was not answered.
    assert await add_groups(store, *groups) == {each.id for each in experiments}
    for each in experiments:
        session = TrainingSession(each.id, TrainingState.RUNNING, iteration=6)
        assert await stored_of(store, each) == ([1, 2, 3, 4, 5, 6], 6, session)
    async with store.read() as work:
        assert await work.experiments.list_events(experiments[1].id, 0, 3) == events_of(experiments[1], 1, 3)


async def test_a_group_of_who_was_overtaken_or_deleted_is_left_out(store: Store) -> None:
    taken, deleted, own = await with_experiments(store, await with_project(store), 3)
    async with store.begin() as work:
        assert await work.queue.claim(TIME, LEASE, 1) is not None
        await work.experiments.delete(deleted.id, "")
        await work.commit()
    groups = [a_group(each, 1, 2) for each in (taken, deleted, own)]
    assert await add_groups(store, *groups) == {own.id}
    assert await add_groups(store, *groups[:2]) == set()
    assert (await stored_of(store, own))[:2] == ([1, 2], 2)
    assert await stored_of(store, taken) == ([], 0, None)


async def test_the_session_is_that_of_the_newest_events_however_many_write_at_once(store: Store) -> None:
    experiment = (await with_experiments(store, await with_project(store)))[0]

    async def report() -> None:
        async with store.begin() as work:
            # Locks the row, as everybody does who writes what belongs to it.
            current = await work.experiments.get(experiment.id, Caller(experiment.creator_id))
            sequence = current.last_sequence + 1
            session = TrainingSession(experiment.id, TrainingState.RUNNING, iteration=sequence)
            await work.experiments.add_events(events_of(experiment, sequence, 1), session, experiment.fencing)
            await work.commit()

    _, lost = await at_once(*(report() for _ in range(12)))
    assert lost == []
    async with store.read() as work:
        session = await work.experiments.find_session(experiment.id)
    assert session is not None
    assert session.iteration == 12


# Models.


async def with_version(store: Store, project: Project, name: str = "churn", **changes: Any) -> ModelVersion:
    async with store.begin() as work:
        made = await work.models.add_version(a_version(project, model_name=name, **changes))
        await work.commit()
    return made


@pytest.mark.parametrize("value", [1e16, -1e300, [1e300, 0.5], 2**53 + 1, True, None, "1e300"], ids=repr)
async def test_a_hyperparameter_comes_back_as_it_was(store: Store, value: Any) -> None:
    project = await with_project(store)
    version = await with_version(store, project, hyperparameters={"a.b$c": value})
    spec = a_spec(hyperparameters={"a.b$c": value})
    dataset = replace(a_dataset(project.id, project.creator_id), id=spec.dataset_id)
    experiment = an_experiment(project.id, project.creator_id, spec=spec)
    async with store.begin() as work:
        await work.datasets.add(dataset)
        await work.experiments.add(experiment)
        await work.commit()
    async with store.read() as work:
        assert (await work.models.load_version(version.id)).hyperparameters == {"a.b$c": value}
        assert (await work.experiments.load(experiment.id)).spec == spec


async def test_versions_of_a_model_are_numbered_without_gap_or_repeat(store: Store) -> None:
    project = await with_project(store)
    made, lost = await at_once(*(with_version(store, project) for _ in range(8)))
    assert lost == []
    assert sorted(version.version for version in made) == list(range(1, 9))
    assert len({version.model_id for version in made}) == 1


async def test_an_alias_points_to_one_version_and_remembers_where_it_was(store: Store) -> None:
    project = await with_project(store)
    versions = [await with_version(store, project) for _ in range(4)]

    async def point(version: ModelVersion, time: datetime) -> None:
        async with store.begin() as work:
            found = await work.models.get_version(version.id, owner_of(project))
            await work.models.set_alias(found, "production", project.creator_id, time)
            await work.commit()

    _, lost = await at_once(*(point(each, TIME + timedelta(seconds=each.version)) for each in versions))
    assert lost == []
    async with store.read() as work:
        model = await work.models.get_model(project.id, "churn")
        history = (await work.models.list_alias_history(model.id, PageRequest())).items
        current = await work.models.find_version(project.id, "churn", alias="production")
    assert [alias.alias for alias in model.aliases] == ["production"]
    assert current is not None
    assert current.id == model.aliases[0].model_version_id
    assert len([entry for entry in history if entry.end_time is None]) == 1
    assert len(history) == 4


async def test_when_a_version_is_deleted_only_what_points_to_it_ends(store: Store) -> None:
    project = await with_project(store)
    first, second = await with_version(store, project), await with_version(store, project)
    times = [TIME + timedelta(seconds=number) for number in range(3)]
    async with store.begin() as work:
        await work.models.set_alias(first, "production", project.creator_id, times[0])
        await work.models.set_alias(first, "candidate", project.creator_id, times[0])
        await work.models.set_alias(second, "production", project.creator_id, times[1])
        await work.models.delete_version(first, "", times[2])
        await work.commit()
    async with store.read() as work:
        history = (await work.models.list_alias_history(first.model_id, PageRequest())).items
    assert {(each.alias, each.version): each.end_time for each in history} == {
        ("production", 1): times[1],
        ("candidate", 1): times[2],
        ("production", 2): None,
    }


async def test_a_model_goes_with_its_last_version(store: Store) -> None:
    project = await with_project(store)
    first, second = await with_version(store, project), await with_version(store, project)
    gone = []
    for version in (first, second):
        async with store.begin() as work:
            gone.append(await work.models.delete_version(version, "", TIME))
            await work.commit()
    assert gone == [False, True]
    async with store.read() as work:
        with pytest.raises(NotFound):
            await work.models.get_model(project.id, "churn")


# Datasets and deletes.


async def test_a_project_goes_with_all_that_is_in_it(store: Store) -> None:
    project = await with_project(store)
    dataset = a_dataset(project.id, project.creator_id)
    async with store.begin() as work:
        await work.datasets.add(dataset)
        await work.commit()
    experiment = (await with_experiments(store, project))[0]
    version = await with_version(store, project)
    async with store.begin() as work:
        await work.projects.delete(project.id, "")
        await work.commit()
    async with store.read() as work:
        assert await work.known_file_ids() == frozenset()  # type: ignore[attr-defined]  # of every store of ours
        for look in (
            lambda: work.datasets.get_version(dataset.current.id),
            lambda: work.experiments.load(experiment.id),
            lambda: work.models.get_version(version.id, owner_of(project)),
        ):
            with pytest.raises(NotFound):
                await look()


async def test_what_refers_to_something_deleted_meanwhile_is_refused(store: Store) -> None:
    project = await with_project(store)
    async with store.begin() as work:
        await work.projects.delete(project.id, "")
        await work.commit()
    with pytest.raises(EasyMLError):
        async with store.begin() as work:
            await work.datasets.add(a_dataset(project.id, project.creator_id))
            await work.commit()


# Outbox.


KINDS = ("record_run",)


async def test_intents_are_due_in_order_until_they_are_done(store: Store) -> None:
    subjects = [uuid4() for _ in range(3)]
    async with store.begin() as work:
        await work.outbox.add("another", uuid4(), TIME)
        for subject in subjects:
            await work.outbox.add("record_run", subject, TIME)
        await work.commit()
    async with store.begin() as work:
        first, second, third = await work.outbox.due(KINDS, TIME, 10)
        await work.outbox.done(first)
        await work.outbox.retry(second, TIME + LONGEST_WAIT)
        await work.commit()
    async with store.read() as work:
        assert [intent.subject_id for intent in await work.outbox.due(KINDS, TIME, 10)] == [third.subject_id]
        later = await work.outbox.due(KINDS, TIME + LONGEST_WAIT, 10)
    assert [(intent.subject_id, intent.attempts) for intent in later] == [(subjects[1], 1), (subjects[2], 0)]


async def test_what_was_put_off_before_the_clock_was_set_back_is_due(store: Store) -> None:
    subject = uuid4()
    async with store.begin() as work:
        await work.outbox.add("record_run", subject, TIME)
        await work.commit()
    for back in (timedelta(hours=1), DAY, 365 * DAY):
        async with store.begin() as work:
            (found,) = await work.outbox.due(KINDS, TIME - back, 10)
            claimed = await work.outbox.claim(KINDS, TIME - back, TIME - back + LONGEST_WAIT)
            assert claimed == found
            assert await work.outbox.claim(KINDS, TIME - back, TIME - back + LONGEST_WAIT) is None
            await work.outbox.retry(found, TIME)
            await work.commit()


async def test_intents_of_one_subject_are_claimed_one_after_the_other(store: Store) -> None:
    subject, other = uuid4(), uuid4()
    kinds = ("add", "forget")
    async with store.begin() as work:
        for kind, of in (("add", subject), ("forget", subject), ("add", other)):
            await work.outbox.add(kind, of, TIME)
        await work.commit()
    async with store.begin() as work:
        claimed = [await work.outbox.claim(kinds, TIME, TIME + LONGEST_WAIT) for _ in range(3)]
        assert [intent and (intent.kind, intent.subject_id) for intent in claimed] == [
            ("add", subject),
            ("add", other),
            None,
        ]
        assert claimed[0] is not None
        await work.outbox.done(claimed[0])
        forgetting = await work.outbox.claim(kinds, TIME, TIME + LONGEST_WAIT)
        assert forgetting is not None
        assert (forgetting.kind, forgetting.subject_id) == ("forget", subject)


async def with_deployment(store: Store, project: Project, **changes: Any) -> tuple[Deployment, ModelVersion]:
    deployment = a_deployment(project.id, project.creator_id, **changes)
    async with store.begin() as work:
        version = await work.models.add_version(a_version(project))
        await work.deployments.add(deployment)
        await work.deployments.put_revision(a_revision(deployment, version))
        await work.commit()
    return deployment, version


async def test_a_deployment_comes_back_as_it_was_stored(store: Store) -> None:
    project = await with_project(store)
    failure = ReplicaFailure(ReplicaFailureReason.EXITED, "It ended.", TIME, -9, ("a line", ODD_TEXTS[2]))
    deployment, version = await with_deployment(
        store,
        project,
        name=ODD_TEXTS[2],
        labels={"a.b": "$c"},
        config=DeploymentConfig(DeploymentEnvironment.STAGING, replicas=3, probes=Probes(startup_seconds=1.5)),
        replicas=(Replica(uuid4(), 1, ReplicaState.READY, "127.0.0.1:1", 2, failure),),
        conditions=(Condition(ConditionType.AVAILABLE, True, "ReplicasReady", "There.", TIME),),
    )
    async with store.read() as work:
        assert await work.deployments.load(deployment.id) == deployment
        assert await work.deployments.find_by_name(project.id, deployment.name) == deployment
        (revision,) = await work.deployments.revisions(deployment.id, [1, 2])
        assert await work.deployments.names_serving(version.id) == [deployment.name]
        with pytest.raises(NotFound):
            await work.deployments.get(deployment.id, Caller(uuid4()))
    assert revision == a_revision(deployment, version, id=revision.id)


async def test_deployments_have_names_and_etags(store: Store) -> None:
    project = await with_project(store)
    deployment, _ = await with_deployment(store, project)
    with pytest.raises(AlreadyExists, match="'species' already exists"):
        await with_deployment(store, project)
    async with store.begin() as work:
        await work.deployments.save(replace(deployment, stopped=True, etag="new"), deployment.etag)
        await work.commit()
    async with store.begin() as work:
        with pytest.raises(Stale):
            await work.deployments.save(deployment, "etag")
        with pytest.raises(Stale):
            await work.deployments.delete(deployment.id, "etag")
    async with store.begin() as work:
        assert (await work.deployments.load(deployment.id)).stopped
        await work.deployments.delete(deployment.id, "new")
        assert await work.deployments.revisions(deployment.id, [1]) == []
        with pytest.raises(NotFound):
            await work.deployments.load(deployment.id)


async def test_revisions_are_listed_newest_first_and_found_by_when_they_answered(store: Store) -> None:
    project = await with_project(store)
    deployment, version = await with_deployment(store, project)
    later = [
        a_revision(deployment, version, number, activate_time=None if number == 3 else TIME + number * DAY)
        for number in (2, 3, 4)
    ]
    async with store.begin() as work:
        for revision in later:
            await work.deployments.put_revision(revision)
        await work.commit()
    async with store.read() as work:
        first = await work.deployments.list_revisions(deployment.id, PageRequest(size=3))
        rest = await work.deployments.list_revisions(deployment.id, PageRequest(size=3, after=first.next))
        assert [revision.number for revision in (*first.items, *rest.items)] == [4, 3, 2, 1]
        before = await work.deployments.active_before(deployment.id, 4)
        assert before is not None
        assert before.number == 2
        assert await work.deployments.active_before(uuid4(), 1) is None


async def test_a_deployment_is_at_work_until_it_is_stopped_and_goes_with_its_project(store: Store) -> None:
    project = await with_project(store)
    deployment, version = await with_deployment(store, project, active_revision=1)
    await with_deployment(store, project, name="stopped", state=DeploymentState.STOPPED)
    async with store.begin() as work:
        assert await work.deployments.unfinished() == [deployment.id]
        assert await work.deployments.serving(Caller(project.creator_id), 9) == [(deployment, version.id)]
        assert await work.deployments.serving(Caller(project.creator_id), 0) == []
        assert await work.deployments.serving(Caller(uuid4()), 9) == []
        await work.projects.delete(project.id, "")
        assert await work.deployments.unfinished() == []
        assert await work.deployments.serving(Caller(project.creator_id), 9) == []


async def test_a_version_that_was_deleted_is_gone_from_its_revisions(store: Store) -> None:
    project = await with_project(store)
    deployment, version = await with_deployment(store, project)
    async with store.begin() as work:
        await work.models.delete_version(await work.models.load_version(version.id), "", TIME)
        (revision,) = await work.deployments.revisions(deployment.id, [1])
    assert (revision.model_version_id, revision.model_name, revision.model_version) == (None, "answers", 1)
