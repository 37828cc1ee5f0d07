"""The model server's command: `easyml-model-server`, also `python -m easyml_server.serving`.

Exit codes: 0 stopped, 2 cannot start or was called wrongly, 3 a model cannot be loaded; one line on standard error
says why.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from easyml_server import __version__
from easyml_server.importing import much_imported

CANNOT_START = 2
CANNOT_LOAD = 3

app = App(
    name="easyml-model-server",
    help="Models behind PredictionService and the Open Inference Protocol, in a process of their own.",
    version=f"easyml-model-server {__version__}",
)


@app.default
def serve(
    *,
    model: Annotated[list[str] | None, Parameter(name="--model", negative=())] = None,
    name: Annotated[list[str] | None, Parameter(name="--name", negative=())] = None,
    models: Path | None = None,
    memory_budget: int = 0,
    host: str = "127.0.0.1",
    port: int = 0,
    jwks: Path | None = None,
    audience: str = "",
    insecure: bool = False,
    metrics_port: int | None = None,
    lifeline: bool = False,
    record: Path | None = None,
    heartbeat: Path | None = None,
    orphan_seconds: float = 600,
    max_predict_rows: int = 10_000,
    max_predict_cells: int = 200_000,
    max_arrow_bytes: int = 3 << 20,
    max_message_bytes: int = 4 << 20,
    max_predictions: int = 256,
    default_deadline_seconds: float = 60,
    drain_grace_seconds: float = 20,
    log_level: str = "info",
    log_format: str = "console",
) -> int:
    """Serve model versions until SIGTERM or Ctrl-C; prints READY and the address when it answers.

    Example: easyml-model-server --model 4f0c...=./model --port 50052 --insecure

    Parameters
    ----------
    model
        VERSION_ID=FOLDER of a model version, with its manifest.json; or VERSION_ID=URL@sha256:DIGEST, a folder in a
        store of files (s3://, https://, file:// ...) and the SHA-256 of the manifest.json there. May be given several
        times.
    name
        NAME=VERSION_ID: a further name by which clients of the Open Inference Protocol ask for a model; may be given
        several times.
    models
        In place of --model and --name: a file {"models": {"VERSION_ID": "FOLDER or URL@sha256:DIGEST"},
        "names": {"NAME": "VERSION_ID"}}. It is read again at SIGHUP: what is new is loaded and predicts for its own
        example, then names mean what the file says; if anything of it cannot be, all stays as it was.
    memory_budget
        Bytes that models may take together; those not asked for longest make room, and come back with their next
        call. 0: all are loaded, and stay.
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    jwks
        File with the public keys (JWK Set) of those who sign tokens; read again when a key is not in it.
    audience
        Audience that tokens must name.
    insecure
        Let anyone ask, without tokens; on a loopback address only.
    metrics_port
        Port on which Prometheus reads /metrics, at the same address, by whoever reaches it; 0 takes a free one; none
        unless given.
    lifeline
        End when standard input is closed, and with the process that started this one.
    record
        With --lifeline: outlive that process from READY on; this file then says where this one is, and is locked.
    heartbeat
        With --record: a file that is touched as long as somebody wants this process.
    orphan_seconds
        With --record: end when nobody has touched the heartbeat for so long.
    max_predict_rows
        Rows of a prediction request.
    max_predict_cells
        Cells of a prediction request.
    max_arrow_bytes
        The Arrow part of a prediction request.
    max_message_bytes
        Largest message.
    max_predictions
        Predictions made or waiting at once, of those that take longer.
    default_deadline_seconds
        Deadline of a call that has none.
    drain_grace_seconds
        Time for calls in flight to end.
    log_level
        Least level of log lines: debug, info, warning, error.
    log_format
        Log lines for people (console) or machines (json).
    """
    if lifeline:
        from easyml_server.processes.parents import die_with_parent

        die_with_parent()
    if models is not None:
        # Until it means something: the file is read after this.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with much_imported():
        from easyml_server.observability.logs import configure_logging
        from easyml_server.serving import process
        from easyml_server.serving.calls import ServingLimits
        from easyml_server.serving.known import CannotStart, parse_known
        from easyml_server.serving.predictors import CannotLoad
        from easyml_server.serving.tables import TableLimits

    configure_logging(log_level, log_format)
    table = TableLimits(max_predict_rows, max_predict_cells, max_arrow_bytes)
    limits = ServingLimits(table, max_message_bytes, max_predictions, default_deadline_seconds)
    try:
        known = parse_known(model or [], name or [], models)
        options = process.Options(
            models=known.sources,
            names=known.names,
            models_file=models,
            memory_budget=memory_budget,
            host=host,
            port=port,
            jwks=jwks,
            audience=audience,
            insecure=insecure,
            metrics_port=metrics_port,
            lifeline=lifeline,
            outliving=process.parse_outliving(record, heartbeat, orphan_seconds, lifeline=lifeline),
            grace_seconds=drain_grace_seconds,
            limits=limits,
        )
        asyncio.run(process.serve(options, _ready))
    except CannotStart as error:
        return _refuse(error, CANNOT_START)
    except CannotLoad as error:
        return _refuse(error, CANNOT_LOAD)
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its exit code."""
    result = app(list(sys.argv[1:] if arguments is None else arguments), result_action="return_value")
    raise SystemExit(result if isinstance(result, int) else 0)


def _ready(address: str) -> None:
    sys.stdout.write(f"READY {address}\n")
    sys.stdout.flush()


def _refuse(error: Exception, code: int) -> int:
    sys.stderr.write(f"easyml-model-server: {error}\n")
    return code


if __name__ == "__main__":
    main()
