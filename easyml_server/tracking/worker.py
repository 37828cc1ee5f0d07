"""The tracking process: does with MLflow what it is asked."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from easyml_server.processes.answering import answer_requests
from easyml_server.tracking.messages import REQUEST, RecordRequest, Request


def main() -> None:
    """Serve requests until the server is gone."""
    folder = Path(sys.argv[1])
    answer_requests(REQUEST, lambda request: _do(folder, request))


def _do(folder: Path, request: Request) -> dict[str, Any]:
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
