"""A real MLflow tracking server for the tests, and a gate before it that can refuse, hold and ask for a password."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests.servers import environment, eventually

START_SECONDS = 120.0
STOP_SECONDS = 30.0
READY = re.compile(r"Uvicorn running on http://([\d.]+):(\d+)")
HOP = {"connection", "transfer-encoding", "host", "content-length", "date", "server"}


@dataclass(frozen=True)
class MlflowServer:
    """`mlflow server` on a folder, which passes artefacts on to its own store."""

    host: str
    port: int

    @property
    def uri(self) -> str:
        """As people write it."""
        return f"http://{self.host}:{self.port}"

    def asked(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer of its REST interface."""
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def runs(self, experiment_id: str, view: str = "ACTIVE_ONLY") -> list[Any]:
        """The runs that carry the id of an experiment of ours."""
        experiments = self.asked("experiments/search", {"max_results": 1000})["experiments"]
        body = {
            "experiment_ids": [each["experiment_id"] for each in experiments],
            "filter": f"tags.`easyml.experiment_id` = '{experiment_id}'",
            "run_view_type": view,
            "max_results": 100,
        }
        return list(self.asked("runs/search", body).get("runs", []))

    def models(self, key: str, value: str) -> list[Any]:
        """The registered models with a tag."""
        query = urllib.parse.urlencode({"filter": f"tags.`{key}` = '{value}'"})
        return list(self.asked(f"registered-models/search?{query}").get("registered_models", []))

    def versions(self, name: str) -> list[Any]:
        """The versions of a registered model."""
        query = urllib.parse.urlencode({"filter": f"name = '{name}'"})
        return list(self.asked(f"model-versions/search?{query}").get("model_versions", []))


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """A server for a while, on a port of its own choice."""
    folder.mkdir(exist_ok=True)
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "0", "--workers", "1", *store]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**environment({}), "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
    try:

        def ready() -> re.Match[str] | None:
            assert process.poll() is None, log.read_text()
            return READY.search(log.read_text())

        found = eventually(ready, START_SECONDS)
        yield MlflowServer(found[1], int(found[2]))
    finally:
        # With its own children, who serve.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS)


class Gate:
    """Passes requests on to a server, unless it was told not to."""

    def __init__(self, target: MlflowServer) -> None:
        self.target = target
        self.refusing: int | None = None
        self.credentials: str | None = None
        self.held_path: str | None = None
        self.holding = threading.Event()
        self.held = 0
        self._open = threading.Event()
        handler = type("Handler", (_Handler,), {"gate": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self._server.server_port

    def hold(self, path: str) -> None:
        """Requests with this in their path wait; `holding` is set once there is one."""
        self.held = 0
        self.holding.clear()
        self._open.clear()
        self.held_path = path

    def release(self) -> None:
        """Whoever waits goes on."""
        self.held_path = None
        self._open.set()

    def refuses(self, handler: BaseHTTPRequestHandler) -> int | None:
        """The status to refuse with; whoever must wait, waits here."""
        if self.held_path is not None and self.held_path in handler.path:
            self.held += 1
            self.holding.set()
            self._open.wait()
        if self.refusing is not None:
            return self.refusing
        if self.credentials is not None:
            expected = base64.b64encode(self.credentials.encode()).decode()
            if handler.headers.get("Authorization") != f"Basic {expected}":
                return 401
        return None

    def close(self) -> None:
        """End it."""
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    gate: ClassVar[Gate]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = self.gate.refuses(self)
        if status is not None:
            self._answer(status, {"Content-Type": "text/html"}, b"<h1>No</h1>")
            return
        target = HTTPConnection(self.gate.target.host, self.gate.target.port)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        target.request(self.command, self.path, body, headers)
        answer = target.getresponse()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        self._answer(answer.status, kept, answer.read())
        target.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815  # the names of the library

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on standard error."""


@contextmanager
def gate(target: MlflowServer) -> Iterator[Gate]:
    """A gate for a while."""
    made = Gate(target)
    try:
        yield made
    finally:
        made.close()
