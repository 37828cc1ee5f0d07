"""The tracking process: reads one request a line, does it with MLflow, answers one line.

It ends when its input closes, which is when the server stops or dies.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, TextIO

from easyml_server.tracking.messages import ANSWER, REQUEST, Answer, ExportRequest, RecordRequest


def main() -> None:
    """Serve requests from standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries that print must not break the protocol.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, lines), daemon=True).start()
    folder = Path(sys.argv[1])
    while True:
        answer = _answer(folder, lines.get())
        answers.write(ANSWER.dump_json(answer).decode() + "\n")
        answers.flush()


def _read(source: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in source:
        lines.put(line)
    # The server is gone: whatever is being done now will be done again by its successor.
    os._exit(0)


def _answer(folder: Path, line: str) -> Answer:
    request = REQUEST.validate_json(line)
    try:
        return Answer(request.id, _do(folder, request))
    except Exception as error:  # the server decides what becomes of it
        return Answer(request.id, error=f"{type(error).__name__}: {error}"[:500])


def _do(folder: Path, request: RecordRequest | ExportRequest) -> dict[str, Any]:
    from easyml_server.tracking import mlflow_runs

    # MLflow tells at length how it could be used; here it is used by a program.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if isinstance(request, RecordRequest):
        return mlflow_runs.record(folder, request)
    mlflow_runs.export_model(Path(request.model_path), Path(request.target))
    return {}


if __name__ == "__main__":
    main()
