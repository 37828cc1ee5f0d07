"""The tracking process: does with MLflow what it is asked."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from easyml_server.importing import much_imported
from easyml_server.processes.answering import answer_requests
from easyml_server.tracking.messages import REQUEST, LookRequest, MirrorRequest, RecordRequest, Request


def main() -> None:
    """Serve requests until the server is gone."""
    folder = Path(sys.argv[1])
    answer_requests(REQUEST, lambda request: _do(folder, request))


def _do(folder: Path, request: Request) -> dict[str, Any]:
    # MLflow tells at length how it could be used; here it is used by a program.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    # Each brings in what it needs of MLflow, which takes seconds.
    match request:
        case RecordRequest():
            with much_imported():
                from easyml_server.tracking.mlflow_runs import record

            return record(folder, request)
        case MirrorRequest():
            with much_imported():
                from easyml_server.tracking.mlflow_registry import mirror

            return mirror(folder, request)
        case LookRequest():
            with much_imported():
                from easyml_server.tracking.mlflow_place import look

            return look(folder)
    with much_imported():
        from easyml_server.tracking.mlflow_models import export_model

    export_model(Path(request.model_path), Path(request.target))
    return {}


if __name__ == "__main__":
    main()
