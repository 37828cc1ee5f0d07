# ruff: noqa: ARG002 - a servicer takes what gRPC gives it
from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from easyml.v1 import experiment_pb2, training_event_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml.v1.training_service_pb2_grpc import TrainingServiceServicer
from easyml_client import AsyncEasyML, errors
from easyml_client.resources.events import Heartbeat, IterationCompleted, TrainingFinished
from tests.unit.client.support import an_id, client_of, refuse, serving

SUCCEEDED, FAILED, CANCELLED = 4, 5, 6


def an_event(sequence: int, last: int, state: int = SUCCEEDED) -> pb.WatchTrainingResponse:
    event = training_event_pb2.TrainingEvent(sequence=sequence)
    if sequence == last:
        event.finished.state = state
    else:
        event.iteration_completed.iteration = sequence
        event.iteration_completed.values["train_loss"] = 1 / sequence
    return pb.WatchTrainingResponse(event=event)


class Story(TrainingServiceServicer):
    """A training of `last` events whose stream breaks after each number in `breaks`."""

    def __init__(self, last: int = 6, breaks: tuple[int, ...] = (), state: int = SUCCEEDED, repeats: int = 0) -> None:
        self.last, self.breaks, self.state, self.repeats = last, list(breaks), state, repeats
        self.asked: list[int] = []
        self.ended = False
        self.cancelled = False

    def WatchTraining(self, request: pb.WatchTrainingRequest, context: Any) -> Iterator[pb.WatchTrainingResponse]:
        self.asked.append(request.after_sequence)
        yield pb.WatchTrainingResponse(heartbeat=pb.TrainingHeartbeat(state=2, stage=4, progress=0.5))
        for sequence in range(max(request.after_sequence - self.repeats, 0) + 1, self.last + 1):
            # Who sees the last event may ask before the rest of this is done.
            self.ended = sequence == self.last
            yield an_event(sequence, self.last, self.state)
            if self.breaks and sequence == self.breaks[0]:
                self.breaks.pop(0)
                refuse(context, grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", retry_after=0.001)

    def GetExperiment(self, request: pb.GetExperimentRequest, context: Any) -> pb.GetExperimentResponse:
        state = self.state if self.ended else 2
        experiment = experiment_pb2.Experiment(id=request.experiment_id, state=state)
        if state == FAILED:
            experiment.failure.reason = experiment_pb2.FAILURE_REASON_TOO_FEW_ROWS
            experiment.failure.message = "There are 3 rows; at least 10 are needed."
        return pb.GetExperimentResponse(experiment=experiment)

    def CancelTraining(self, request: pb.CancelTrainingRequest, context: Any) -> pb.CancelTrainingResponse:
        self.cancelled = True
        return pb.CancelTrainingResponse(experiment=experiment_pb2.Experiment(id=request.experiment_id, state=3))


class Endless(Story):
    """A sign of life, and then nothing until the caller goes away."""

    def __init__(self) -> None:
        super().__init__()
        self.left = threading.Event()

    def WatchTraining(self, request: pb.WatchTrainingRequest, context: Any) -> Iterator[pb.WatchTrainingResponse]:
        context.add_callback(self.left.set)
        yield pb.WatchTrainingResponse(heartbeat=pb.TrainingHeartbeat(state=2))
        self.left.wait()


def test_a_watch_that_breaks_goes_on_without_gap_or_repeat() -> None:
    story = Story(last=6, breaks=(3, 4))
    with client_of(story) as client:
        seen = [event.sequence for event in client.trainings.watch(an_id("experiment"))]
    assert seen == [1, 2, 3, 4, 5, 6]
    assert story.asked == [0, 3, 4]


def test_events_that_come_again_are_left_out() -> None:
    story = Story(last=5, breaks=(3,), repeats=2)
    with client_of(story) as client:
        assert [event.sequence for event in client.trainings.watch(an_id("experiment"))] == [1, 2, 3, 4, 5]


def test_a_stream_that_ends_without_the_last_event_is_taken_up_again() -> None:
    class Short(Story):
        def WatchTraining(self, request: pb.WatchTrainingRequest, context: Any) -> Iterator[pb.WatchTrainingResponse]:
            self.asked.append(request.after_sequence)
            yield an_event(request.after_sequence + 1, last=3)

    story = Short()
    with client_of(story) as client:
        assert [event.sequence for event in client.trainings.watch(an_id("experiment"))] == [1, 2, 3]
    assert story.asked == [0, 1, 2]


def test_a_watch_begins_after_the_sequence_that_was_seen() -> None:
    story = Story()
    with client_of(story) as client:
        seen = [event.sequence for event in client.trainings.watch(an_id("experiment"), after_sequence=4)]
    assert seen == [5, 6]


async def test_the_asyncio_client_goes_on_too() -> None:
    story = Story(last=6, breaks=(3,))
    with serving(story) as target:
        async with AsyncEasyML(target, "a-token") as client:
            seen = [event.sequence async for event in client.trainings.watch(an_id("experiment"))]
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_watch_is_refused_when_there_is_nothing_to_watch() -> None:
    class Unknown(TrainingServiceServicer):
        def WatchTraining(self, request: pb.WatchTrainingRequest, context: Any) -> Any:
            refuse(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
            yield

    with client_of(Unknown()) as client, pytest.raises(errors.NotFound):
        list(client.trainings.watch(an_id("experiment")))


def test_a_name_is_no_experiment_id() -> None:
    with client_of() as client, pytest.raises(errors.InvalidInput, match="no experiment id"):
        list(client.trainings.watch("my experiment"))


def test_a_watch_gives_up_in_the_end() -> None:
    from easyml_client.plans.trainings import watch
    from easyml_client.steps import Open, Sleep

    plan, waits = watch(an_id("experiment")), []

    def never_reach_the_server() -> None:
        step = next(plan)
        while True:
            if isinstance(step, Sleep):
                waits.append(step.seconds)
                step = plan.send(None)
            else:
                assert isinstance(step, Open)
                step = plan.throw(errors.Unavailable("away"))

    with pytest.raises(errors.Unavailable):
        never_reach_the_server()
    assert waits[:5] == [0.2, 0.4, 0.8, 1.6, 3.0]
    assert 60 < sum(waits) < 80


def test_signs_of_life_are_shown_to_those_who_follow() -> None:
    with client_of(Story(last=2)) as client:
        seen = list(client.trainings.follow(an_id("experiment")))
    beat, iteration, finished = seen
    assert isinstance(beat, Heartbeat)
    assert (beat.state, beat.stage, beat.progress) == ("running", "fitting", 0.5)
    assert isinstance(iteration, IterationCompleted)
    assert iteration.values == {"train_loss": 1.0}
    assert isinstance(finished, TrainingFinished)
    assert finished.state == "succeeded"


def test_leaving_a_watch_ends_its_call() -> None:
    story = Endless()
    with client_of(story) as client:
        for _ in client.trainings.follow(an_id("experiment")):
            break
        assert story.left.wait(timeout=30)


def test_a_result_is_the_experiment_in_the_end() -> None:
    with client_of(Story(breaks=(2,))) as client:
        training = client.trainings.get(an_id("experiment"))
        assert training.result(timeout=30).state == "succeeded"
        assert training.experiment.ended


def test_a_training_that_failed_says_why() -> None:
    with client_of(Story(state=FAILED)) as client, pytest.raises(errors.TrainingFailed, match="There are 3 rows") as it:
        client.trainings.result(an_id("experiment"))
    assert it.value.reason == "TOO_FEW_ROWS"
    assert it.value.failure
    assert it.value.failure.message.startswith("There are 3 rows")


def test_a_training_that_was_cancelled_has_no_result() -> None:
    with client_of(Story(state=CANCELLED)) as client, pytest.raises(errors.TrainingCancelled):
        client.trainings.result(an_id("experiment"))


def test_a_result_that_takes_too_long_says_that_the_training_goes_on() -> None:
    with client_of(Endless()) as client, pytest.raises(errors.DeadlineExceeded, match="goes on"):
        client.trainings.result(an_id("experiment"), timeout=0.05)


def test_a_handle_cancels() -> None:
    story = Story()
    with client_of(story) as client:
        training = client.trainings.get(an_id("experiment"))
        assert training.cancel().state == "cancelling"
    assert story.cancelled
