"""One client: a loop that draws what it does next, and writes down what it asked and was told.

It uses the Python client, so retries are those of a user.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from easyml_client.errors import EasyMLError, NotFound, Stale
from tests.soak.journal import LeftEarly
from tests.soak.shelf import Shelf
from tests.soak.tools import Tools
from tests.soak.trainings import Trainings
from tests.soak.uploads import Uploads

PAGE = 7
PAUSE_SECONDS = (0.05, 0.4)
ROWS = tuple({"x": number / 2, "z": number} for number in range(8))
AUDIT_SECONDS = 60.0
SHARES = {
    "upload": 12,
    "start": 16,
    "watch": 20,
    "cancel": 5,
    "update": 12,
    "alias": 6,
    "predict": 12,
    "delete": 5,
    "list": 8,
    "peek": 3,
}


class SoakClient(threading.Thread):
    """A program of one user's. (Threads have a `_delete` and a `_stop` of their own.)"""

    def __init__(self, tools: Tools, ending: threading.Event) -> None:
        super().__init__(name=tools.name, daemon=True)
        self.failure = ""
        self._tools = tools
        self._ending = ending
        self._uploads = Uploads(tools)
        self._trainings = Trainings(tools)
        self._actions: dict[str, Callable[[], None]] = {
            "upload": self._uploads.upload,
            "start": self._trainings.start,
            "watch": self._trainings.watch,
            "cancel": self._trainings.cancel,
            "update": self._do_update,
            "alias": self._do_alias,
            "predict": self._do_predict,
            "delete": self._do_delete,
            "list": self._do_list,
            "peek": self._do_peek,
        }

    @property
    def shelf(self) -> Shelf:
        """What it knows of its project."""
        return self._tools.shelf

    def run(self) -> None:
        """Until it is told to end; what is no refusal ends it, and is its failure."""
        draw = self._tools.draw
        try:
            while not self._ending.wait(draw.uniform(*PAUSE_SECONDS)):
                kind = draw.choices(list(SHARES), list(SHARES.values()))[0]
                self._once(self._actions[kind])
        except Exception:
            self.failure = traceback.format_exc()

    def settle(self) -> bool:
        """Repeat what is in doubt; whether nothing is any more."""
        for upload_id in list(self._uploads.left):
            self._once(self._uploads.send, upload_id, leave=False)
        for request_id in list(self._trainings.doubtful):
            self._once(self._trainings.ask_to_start, request_id)
        return not self._uploads.left and not self._trainings.doubtful

    def audit(self, experiment_id: str) -> None:
        """Watch a training that has ended from its first event to its last."""
        self._once(self._trainings.follow, experiment_id, 0, None, AUDIT_SECONDS)

    def give_up(self, experiment_id: str) -> None:
        """Cancel a training that takes too long at the end."""
        self._once(self._trainings.ask_to_cancel, experiment_id)

    def hang_up(self) -> None:
        """Ends calls that still run."""
        self._tools.easyml.close()
        self._tools.plain.close()

    def close(self) -> None:
        """Nothing more is asked."""
        self.hang_up()
        self._tools.journal.close()

    def _once(self, action: Callable[..., None], *values: Any, **named: Any) -> None:
        try:
            action(*values, **named)
        except (EasyMLError, LeftEarly):
            # Written down, and judged in the end.
            return

    def _do_update(self) -> None:
        dataset_id = self._tools.shelf.a_dataset(self._tools.draw)
        etag = self._tools.shelf.etags.get(dataset_id or "")
        if dataset_id is None or etag is None:
            return
        description = str(uuid4())
        try:
            with self._tools.journal.call("update", dataset=dataset_id, etag=etag, description=description) as told:
                changed = self._tools.easyml.datasets.update(dataset_id, description=description, etag=etag)
                told.update(etag=changed.etag)
        except Stale:
            with self._tools.journal.call("read", dataset=dataset_id) as told:
                changed = self._tools.easyml.datasets.get(dataset_id)
                told.update(etag=changed.etag, description=changed.description)
        self._tools.shelf.put_etag(dataset_id, changed.etag)

    def _do_alias(self) -> None:
        version_id = self._tools.shelf.take_for_alias(self._tools.draw)
        if version_id is None:
            return
        # A name of its own, so that its calls have one order.
        with self._tools.journal.call("alias", version=version_id, alias=self._tools.name) as told:
            told.update(aliases=list(self._tools.easyml.models.set_alias(version_id, self._tools.name).aliases))

    def _do_predict(self) -> None:
        version_id = self._tools.shelf.a_version(self._tools.draw)
        if version_id is None:
            return
        number = self._tools.draw.randrange(len(ROWS))
        with self._tools.journal.call("predict", version=version_id, row=number) as told:
            told.update(values=self._tools.easyml.predictions.predict(version_id, [ROWS[number]]).values)

    def _do_delete(self) -> None:
        if self._tools.draw.random() < 0.5:
            dataset_id = self._tools.shelf.take_dataset(self._tools.draw)
            if dataset_id is not None:
                with self._tools.journal.call("delete", dataset=dataset_id):
                    self._tools.easyml.datasets.delete(dataset_id, force=True)
            return
        version_id = self._tools.shelf.take_version(self._tools.draw)
        if version_id is not None:
            with self._tools.journal.call("delete", version=version_id):
                self._tools.easyml.models.delete(version_id)

    def _do_list(self) -> None:
        what = self._tools.draw.choice(["datasets", "experiments"])
        noun: Any = getattr(self._tools.easyml, what)
        with self._tools.journal.call("list", what=what, project=self._tools.shelf.project_id) as told:
            told.update(ids=[each.id for each in noun.list(self._tools.shelf.project_id, page_size=PAGE)])

    def _do_peek(self) -> None:
        """At what is somebody else's, which must look as if it were not there."""
        dataset_id = self._tools.foreign.a_dataset(self._tools.draw)
        if dataset_id is not None:
            with self._tools.journal.call("peek", dataset=dataset_id):
                self._look(dataset_id)

    def _look(self, dataset_id: str) -> None:
        try:
            self._tools.easyml.datasets.get(dataset_id)
        except NotFound:
            return
        raise AssertionError(f"somebody else's dataset {dataset_id} was shown")
