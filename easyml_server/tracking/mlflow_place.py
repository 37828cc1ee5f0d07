"""Where MLflow is: the server that MLFLOW_TRACKING_URI names, else a database in the data folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from requests.exceptions import RequestException

from easyml_server.processes.answering import ToldError
from easyml_server.tracking.mlflow_errors import told
from easyml_server.tracking.server import URI_VARIABLE

PROXIED = ("mlflow-artifacts", "http", "https")
PAGE = 200


@dataclass(frozen=True, slots=True)
class Place:
    """`artifacts` is where a new experiment keeps its files; None leaves that to the server."""

    client: MlflowClient
    uri: str
    artifacts: str | None

    def experiment(self, name: str) -> str:
        """The id of an experiment, made if it is new, and brought back if somebody deleted it."""
        experiment_id = self._made(name)
        experiment = self.client.get_experiment(experiment_id)
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment_id)
        location = experiment.artifact_location
        if self.artifacts is None and urlsplit(location).scheme not in PROXIED:
            raise ToldError(
                f"the experiment {name!r} keeps its files at {location}, to which the MLflow server passes nothing on; "
                "start it with --artifacts-destination, and name another experiment in the project's configuration"
            )
        return experiment_id

    def _made(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(name, artifact_location=self.artifacts))
        except MlflowException:
            # Another server may have been faster.
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    """Where it is for this process; what goes wrong there is told in words that a person can act on."""
    uri = os.environ.get(URI_VARIABLE)
    if uri is None:
        local = f"sqlite:///{database(folder)}"
        yield Place(MlflowClient(tracking_uri=local, registry_uri=local), local, (folder / "artifacts").as_uri())
        return
    try:
        yield Place(MlflowClient(tracking_uri=uri, registry_uri=uri), uri, None)
    except (MlflowException, RequestException) as error:
        raise told(error, uri) from error


def database(folder: Path) -> Path:
    """MLflow's database, made aside if there is none: half of one, left by a kill, could never be used again."""
    path = folder / "mlflow.db"
    if not path.exists():
        with tempfile.TemporaryDirectory() as aside:
            made = Path(aside) / path.name
            store: Any = SqlAlchemyStore(f"sqlite:///{made}", str(folder / "artifacts"))  # type: ignore[no-untyped-call]
            store.engine.dispose()
            # Another server may have been faster.
            with suppress(FileExistsError):
                path.hardlink_to(made)
    return path


def every(search: Callable[..., Any]) -> Iterator[Any]:
    """All that a search finds, page after page."""
    token: str | None = None
    while True:
        page = search(max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def look(folder: Path) -> dict[str, Any]:
    """Ask it something that needs permission to read; what there is to say."""
    with opened(folder) as place:
        place.client.search_experiments(max_results=1)
    return {"sentence": f"{place.uri} answers, and experiments can be read."}
