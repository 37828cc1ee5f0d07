"""Trainings: started, started again in doubt, watched in pieces, and cancelled.

They are watched over plain stubs: the Python client leaves out events that come twice, and the soak wants to know.
"""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid4

import grpc

from easyml.v1 import experiment_pb2, training_event_pb2
from easyml.v1 import training_service_pb2 as pb
from easyml_client.errors import DeadlineExceeded, EasyMLError, LimitReached, Unavailable, from_rpc
from tests.soak.journal import LeftEarly
from tests.soak.tools import Tools

MODELS = ("first", "second")
MOST_UNFINISHED = 8
STATES = experiment_pb2.TrainingState
TERMINAL = ("TRAINING_STATE_SUCCEEDED", "TRAINING_STATE_FAILED", "TRAINING_STATE_CANCELLED")


class Trainings:
    """Those of one client and of others in its project."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.doubtful: dict[str, dict[str, Any]] = {}
        """Starts that are not known to have happened, by request id."""
        self._seen: dict[str, int] = {}
        """The last sequence of each training that was watched."""

    def start(self) -> None:
        """Start one, or repeat what is in doubt; some that were answered are repeated too."""
        if not self.doubtful:
            dataset_id = self._tools.shelf.a_dataset(self._tools.draw)
            if dataset_id is None or self._tools.shelf.unfinished() >= MOST_UNFINISHED:
                return
            self.doubtful[str(uuid4())] = self._a_training(dataset_id)
        request_id, again = next(iter(self.doubtful)), self._tools.draw.random() < 0.15
        asked = self.doubtful[request_id]
        self.ask_to_start(request_id)
        if again:
            self.doubtful[request_id] = asked
            self.ask_to_start(request_id)

    def _a_training(self, dataset_id: str) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "dataset": dataset_id,
            "model": self._tools.draw.choice(MODELS),
            "algorithm": "gaussian_nb",
        }
        if self._tools.draw.random() < 0.4:
            # Some seconds, with events all along.
            trees = {"n_estimators": self._tools.draw.randrange(50, 400)}
            return {**asked, "algorithm": "random_forest", "hyperparameters": trees, "cross_validation": 3}
        return asked

    def ask_to_start(self, request_id: str) -> None:
        """Whether it started is in doubt until it is answered."""
        asked = self.doubtful[request_id]
        given = {name: value for name, value in asked.items() if name not in ("dataset", "model")}
        try:
            with self._tools.journal.call(
                "start", project=self._tools.shelf.project_id, request=request_id, **asked
            ) as told:
                started = self._tools.easyml.trainings.start(
                    self._tools.shelf.project_id,
                    dataset=asked["dataset"],
                    model_name=asked["model"],
                    target="y",
                    seed=1,
                    labels={"request": request_id},
                    request_id=request_id,
                    **given,
                )
                told.update(experiment=started.id)
        except (Unavailable, DeadlineExceeded, LimitReached):
            raise
        except EasyMLError:
            del self.doubtful[request_id]
            raise
        del self.doubtful[request_id]
        self._tools.shelf.add_experiment(started.id)

    def watch(self) -> None:
        """From where this client was, to the end or for a while."""
        experiment_id = self._tools.shelf.an_experiment(self._tools.draw, unfinished=self._tools.draw.random() < 0.9)
        if experiment_id is None:
            return
        longest = self._tools.draw.randrange(1, 40) if self._tools.draw.random() < 0.4 else None
        self.follow(experiment_id, self._seen.get(experiment_id, 0), longest, self._tools.draw.uniform(2, 8))

    def follow(self, experiment_id: str, after: int, longest: int | None, seconds: float) -> None:
        """To the end, but for no more than so many events and seconds."""
        request = pb.WatchTrainingRequest(experiment_id=experiment_id, after_sequence=after)
        with self._tools.journal.call("watch", experiment=experiment_id, after=after) as told:
            events = told["events"] = list[list[Any]]()
            call = self._tools.plain.trainings.WatchTraining(request, timeout=seconds)
            try:
                for answer in call:
                    if answer.HasField("event"):
                        events.append(_noted(answer.event))
                        self._seen[experiment_id] = max(self._seen.get(experiment_id, 0), answer.event.sequence)
                        self._note_end(experiment_id, answer.event, told)
                    if longest is not None and len(events) >= longest and "state" not in told:
                        raise LeftEarly
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise LeftEarly from error
                raise from_rpc(error, target=self._tools.plain.address, method="WatchTraining", call_id="") from error
            finally:
                call.cancel()
            if "state" not in told and not (after and not events):
                raise Unavailable("The stream ended without its last event.", reason="UNREACHABLE")

    def _note_end(self, experiment_id: str, event: training_event_pb2.TrainingEvent, told: dict[str, Any]) -> None:
        if event.WhichOneof("event") == "finished":
            finished = event.finished
            told.update(state=STATES.Name(finished.state), version=finished.model_version_id)
            told["failure"] = experiment_pb2.FailureReason.Name(finished.failure.reason) if finished.failure else ""
            self._tools.shelf.ended(experiment_id, told["state"], finished.model_version_id)

    def cancel(self) -> None:
        """Any that has not ended."""
        experiment_id = self._tools.shelf.an_experiment(self._tools.draw, unfinished=True)
        if experiment_id is not None:
            self.ask_to_cancel(experiment_id)

    def ask_to_cancel(self, experiment_id: str) -> None:
        """This one."""
        with self._tools.journal.call("cancel", experiment=experiment_id) as told:
            found = self._tools.easyml.trainings.cancel(experiment_id)
            told.update(state=f"TRAINING_STATE_{(found.state or '').upper()}", version=found.model_version_id or "")
        if told["state"] in TERMINAL:
            self._tools.shelf.ended(experiment_id, told["state"], told["version"])


def _noted(event: training_event_pb2.TrainingEvent) -> list[Any]:
    """Sequence, kind, and what tells two events apart."""
    digest = hashlib.sha256(event.SerializeToString(deterministic=True)).hexdigest()[:12]
    return [event.sequence, event.WhichOneof("event"), digest]
