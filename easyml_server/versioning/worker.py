"""The versioning process: does with DVC what it is asked."""

from __future__ import annotations

import io
import logging
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from easyml_server.processes.answering import answer_requests
from easyml_server.versioning.messages import REQUEST, AddRequest, ForgetRequest, PushRequest, Request

NICENESS = 10
"""Hashing a large table takes a core for seconds, and nobody waits for it."""


def main() -> None:
    """Serve requests until the server is gone."""
    os.nice(NICENESS)
    answer_requests(REQUEST, _do)


def _do(request: Request) -> dict[str, Any]:
    # DVC tells at length what it does; here it works for a program.
    with redirect_stdout(io.StringIO()):
        return _done(request)


def _done(request: Request) -> dict[str, Any]:
    from easyml_server.versioning import dvc_repository

    logging.getLogger("dvc").setLevel(logging.ERROR)
    match request:
        case AddRequest():
            return dvc_repository.add(request.repository, request.place, request.number, Path(request.files))
        case PushRequest():
            dvc_repository.push(request.repository, request.place)
            return {}
        case ForgetRequest():
            return {"bytes_freed": dvc_repository.forget(request.repository, request.place)}
    return {"bytes_freed": dvc_repository.forget_project(request.repository)}


if __name__ == "__main__":
    main()
