"""Several servers on one PostgreSQL: what one does the others see, and take over when it dies."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import psutil
import pytest

from easyml.v1 import auth_service_pb2, experiment_pb2, project_service_pb2
from easyml.v1 import training_service_pb2 as pb
from tests.builders import PASSWORD, a_long_training, a_project_of, a_training, register, upload
from tests.faults.consistency import check_shared
from tests.integration.replicas import Replicas, client_of, replicas, said, watch
from tests.marks import limits
from tests.postgresql import PostgresServer, find_binaries, postgresql, stop
from tests.postgresql import start as start_postgresql
from tests.servers import Client, ServerProcess, eventually, refusal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WATCHERS = 20
SOCKETS_ONLY = {"listen_addresses": ""}
SIGNALS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'easyml-signals' AND datname = current_database()"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgresql(tmp_path_factory.mktemp("postgresql") / "data") as server:
        yield server


@contextmanager
def empty_database(postgres: PostgresServer) -> Iterator[str]:
    """One without tables; its URL."""
    name = asyncio.run(postgres.create_database())
    yield postgres.database_url(name)
    asyncio.run(postgres.drop_database(name))


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Replicas]:
    """Two that tests share, who leave them alive and without a training."""
    with empty_database(postgres) as url, replicas(tmp_path_factory.mktemp("pair"), url) as pair:
        yield pair


def start(client: Client, request: pb.StartTrainingRequest) -> str:
    return str(client.trainings.StartTraining(request).experiment.id)


def get(client: Client, experiment_id: str) -> experiment_pb2.Experiment:
    request = pb.GetExperimentRequest(experiment_id=experiment_id)
    found: experiment_pb2.Experiment = client.trainings.GetExperiment(request).experiment
    return found


def cancel(client: Client, experiment_id: str) -> None:
    client.trainings.CancelTraining(pb.CancelTrainingRequest(experiment_id=experiment_id))


def states(events: list[experiment_pb2.TrainingEvent]) -> list[str]:
    changes = [event.state_changed.state for event in events if event.WhichOneof("event") == "state_changed"]
    return [experiment_pb2.TrainingState.Name(state).removeprefix("TRAINING_STATE_") for state in changes]


def a_running_one(pair: Replicas) -> tuple[str, ServerProcess, ServerProcess]:
    """A training that does not end by itself, the server that runs it, and the other."""
    with client_of(pair.servers[0]) as client:
        project_id = a_project_of(client)
        experiment_id = start(client, a_long_training(project_id, upload(client, project_id).id))
        next(event for event in watch(client, experiment_id) if event.WhichOneof("event") == "iteration_completed")
    runner = pair.runner()
    return experiment_id, runner, pair.other(runner)


# What one runs, the other sees.


def test_watchers_of_both_see_everything_once(pair: Replicas) -> None:
    with client_of(pair.servers[0]) as here, client_of(pair.servers[1]) as there:
        project_id = a_project_of(here)
        request = a_training(project_id, upload(here, project_id).id, algorithm="random_forest")
        request.spec.cross_validation.folds = 5
        experiment_id = start(there, request)
        with ThreadPoolExecutor(2 * WATCHERS) as pool:
            watching = [
                pool.submit(lambda client: [event.sequence for event in watch(client, experiment_id)], client)
                for client in (here, there) * WATCHERS
            ]
            found = [each.result() for each in watching]
        experiment = get(here, experiment_id)
    assert experiment.state == experiment_pb2.TRAINING_STATE_SUCCEEDED
    assert found == [list(range(1, experiment.last_sequence + 1))] * 2 * WATCHERS
    check_shared(pair.files, pair.url)


def test_a_training_is_cancelled_where_it_does_not_run(pair: Replicas) -> None:
    experiment_id, _, other = a_running_one(pair)
    with client_of(other) as client:
        cancel(client, experiment_id)
        events = list(watch(client, experiment_id))
    assert states(events)[-2:] == ["CANCELLING", "CANCELLED"]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    check_shared(pair.files, pair.url)


def test_what_is_missed_while_no_signal_can_be_heard_is_found(pair: Replicas) -> None:
    experiment_id, runner, other = a_running_one(pair)
    before = {row["pid"] for row in pair.execute(SIGNALS)}
    assert len(before) == 2
    with client_of(other) as client:
        events = watch(client, experiment_id)
        seen = [next(events).sequence]
        pair.execute(f"SELECT pg_terminate_backend(pid) FROM ({SIGNALS}) AS found")
        with client_of(runner) as elsewhere:
            cancel(elsewhere, experiment_id)
        seen += [event.sequence for event in events]
    assert seen == list(range(1, len(seen) + 1))
    eventually(lambda: len({row["pid"] for row in pair.execute(SIGNALS)} - before) == 2 or None)
    # And they are heard again.
    experiment_id, runner, other = a_running_one(pair)
    with client_of(other) as client:
        cancel(client, experiment_id)
        assert states(list(watch(client, experiment_id)))[-1] == "CANCELLED"


def test_a_request_sent_to_both_starts_one_training(pair: Replicas) -> None:
    with client_of(pair.servers[0]) as here, client_of(pair.servers[1]) as there:
        project_id = a_project_of(here)
        request = a_training(project_id, upload(there, project_id).id, request_id=str(uuid4()))
        with ThreadPoolExecutor(8) as pool:
            started = set(pool.map(lambda client: start(client, request), (here, there) * 4))
        assert len(started) == 1
        list(watch(here, started.pop()))
    assert pair.execute("SELECT count(*) FROM ml_experiments WHERE project_id = $1", project_id)[0]["count"] == 1
    check_shared(pair.files, pair.url)


def test_a_project_runs_no_more_trainings_than_it_may_on_both_together(pair: Replicas) -> None:
    running = "SELECT count(*) FROM ml_experiments WHERE state = 'running'"
    with client_of(pair.servers[0]) as client:
        project_id = a_project_of(client)
        dataset_id = upload(client, project_id).id
        # A third has room for one that a project may not run.
        third = pair.start()
        started = [start(client, a_long_training(project_id, dataset_id)) for _ in range(3)]
        eventually(lambda: pair.execute(running)[0]["count"] == 2 or None)
        cancel(client, started[0])
        list(watch(client, started[0]))
        eventually(lambda: get(client, started[2]).state == experiment_pb2.TRAINING_STATE_RUNNING or None)
        assert pair.execute(running)[0]["count"] == 2
        for each in started[1:]:
            cancel(client, each)
            list(watch(client, each))
    pair.servers.remove(third)
    third.stop()


def test_servers_that_start_together_on_a_new_database_all_start(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url, number=0) as pair, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: pair.start(), range(3)))
        with client_of(pair.servers[0]) as client:
            project_id = a_project_of(client)
        for server in pair.servers:
            with client_of(server) as client:
                request = project_service_pb2.GetProjectRequest(project_id=project_id)
                assert client.projects.GetProject(request).project.id == project_id


# When one of them dies, or was taken for dead.


def test_a_server_that_is_killed_is_succeeded_by_the_other(pair: Replicas) -> None:
    experiment_id, runner, other = a_running_one(pair)
    with client_of(other) as client:
        project_id = get(client, experiment_id).project_id
        waiting = start(client, a_training(project_id, upload(client, project_id).id))
        events = []
        for event in watch(client, experiment_id):
            events.append(event)
            if len(events) == 3:
                runner.kill()
            if states(events) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING"]:
                cancel(client, experiment_id)
        assert states(events) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "CANCELLING", "CANCELLED"]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert states(list(watch(client, waiting)))[-1] == "SUCCEEDED"
    runner.start()
    check_shared(pair.files, pair.url)


def test_a_server_that_stops_in_order_leaves_its_training_to_the_other_at_once(tmp_path: Path, url: str) -> None:
    # Nothing is taken over from a lease as long as this.
    with replicas(tmp_path, url, number=0) as pair:
        for _ in range(2):
            pair.start(LEASE_SECONDS="3600")
        experiment_id, runner, other = a_running_one(pair)
        with client_of(other) as client:
            assert runner.stop() == 0
            assert pair.runner() is other
            cancel(client, experiment_id)
            events = list(watch(client, experiment_id))
    assert states(events) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "CANCELLING", "CANCELLED"]


@limits("LEASE_SECONDS")
def test_a_server_that_was_frozen_past_its_lease_does_not_overwrite_its_successor(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url, number=0) as pair:
        # It freezes with the trained model in its hands.
        frozen = pair.start(FAULT="training.trained=stop")
        with client_of(frozen) as client:
            project_id = a_project_of(client)
            experiment_id = start(client, a_training(project_id, upload(client, project_id).id))
            stopped = psutil.Process(frozen.running.pid)
            eventually(lambda: stopped.status() == psutil.STATUS_STOPPED or None)
        successor = pair.start()
        with client_of(successor) as client:
            events = list(watch(client, experiment_id))
            before = get(client, experiment_id)
            assert states(events) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "SUCCEEDED"]
            stopped.resume()
            said(frozen, "training_taken_over")
            assert get(client, experiment_id) == before
            assert [event.sequence for event in events] == list(range(1, before.last_sequence + 1))
        check_shared(pair.files, pair.url)


def test_a_server_that_wakes_up_in_mid_run_stops_what_is_no_longer_its_own(pair: Replicas) -> None:
    experiment_id, runner, other = a_running_one(pair)
    runner.running.send_signal(signal.SIGSTOP)
    with client_of(other) as client:
        eventually(lambda: pair.trains(other) or None)
        runner.running.send_signal(signal.SIGCONT)
        eventually(lambda: not pair.trains(runner) or None)
        assert get(client, experiment_id).state == experiment_pb2.TRAINING_STATE_RUNNING
        cancel(client, experiment_id)
        events = list(watch(client, experiment_id))
        assert get(client, experiment_id).last_sequence == len(events)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    check_shared(pair.files, pair.url)


def test_a_database_that_was_away_for_longer_than_a_lease_costs_no_training(tmp_path: Path) -> None:
    with (
        postgresql(tmp_path / "postgresql", durable=True) as mortal,
        replicas(tmp_path, mortal.database_url("postgres")) as pair,
    ):
        experiment_id, runner, other = a_running_one(pair)
        assert mortal.process is not None
        mortal.process.send_signal(signal.SIGKILL)
        stop(mortal)
        # Each of them tries to renew three times a lease.
        for server in pair.servers:
            said(server, "leases_not_renewed", times=5)
        back = start_postgresql(find_binaries(), tmp_path / "postgresql", sockets_of(mortal), SOCKETS_ONLY)
        try:
            with client_of(other) as client:
                last = eventually(lambda: last_sequence(client, experiment_id))
                eventually(lambda: get(client, experiment_id).last_sequence > last or None)
                assert pair.runner() is runner
                cancel(client, experiment_id)
                events = list(watch(client, experiment_id))
            assert states(events) == ["QUEUED", "RUNNING", "CANCELLING", "CANCELLED"]
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            for server in pair.servers:
                server.stop()
        finally:
            stop(back)


def last_sequence(client: Client, experiment_id: str) -> int | None:
    """None while the database is away."""
    try:
        return get(client, experiment_id).last_sequence
    except grpc.RpcError:
        return None


def sockets_of(server: PostgresServer) -> Path:
    return Path(server.url.rpartition("host=")[2])


# Who is let in.


def test_tokens_of_one_hold_on_the_other(pair: Replicas) -> None:
    me = auth_service_pb2.GetCurrentUserRequest()
    with Client(pair.servers[0].address) as here, Client(pair.servers[1].address) as there:
        account = register(here)
        with Client(there.address, account.session.access_token) as client:
            assert client.auth.GetCurrentUser(me).user == account.user
        first = auth_service_pb2.RefreshTokenRequest(refresh_token=account.session.refresh_token)
        renewed = there.auth.RefreshToken(first).session
        with Client(here.address, renewed.access_token) as client, Client(there.address, renewed.access_token) as other:
            assert other.auth.GetCurrentUser(me).user == client.auth.GetCurrentUser(me).user == account.user
            # Used twice, though at different servers: the session is ended, at both, whatever they remember.
            assert refusal(here.auth.RefreshToken, first).reason == "TOKEN_REUSED"
            for each in (client, other):
                eventually(lambda each=each: each.auth.GetCurrentUser.future(me).exception())
                assert refusal(each.auth.GetCurrentUser, me).code.name == "UNAUTHENTICATED"


def test_attempts_to_sign_in_are_counted_together(tmp_path: Path, url: str) -> None:
    with replicas(tmp_path, url, number=0) as pair:
        for _ in range(2):
            pair.start(LOGINS_PER_MINUTE="4")
        with Client(pair.servers[0].address) as here, Client(pair.servers[1].address) as there:
            email = register(here).user.email
            wrong = auth_service_pb2.LoginRequest(email=email, password="wrong")
            for client in (here, there, here, there):
                assert refusal(client.auth.Login, wrong).reason == "WRONG_CREDENTIALS"
            right = auth_service_pb2.LoginRequest(email=email, password=PASSWORD)
            for client in (here, there):
                assert refusal(client.auth.Login, right).reason == "TOO_MANY_ATTEMPTS"
