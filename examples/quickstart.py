"""What `make quickstart` runs: a server on a free port, the first example against it, and a clean stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).with_name("01_quickstart.py")
STOP_SECONDS = 30


def main() -> int:
    print("Starting a server ...", flush=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "easyml_server", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "EASYML_LOG_LEVEL": os.environ.get("EASYML_LOG_LEVEL", "warning")},
    )
    try:
        ready = server.stdout.readline() if server.stdout else ""
        if not ready.startswith("READY "):
            return server.wait()
        address = ready.split()[1]
        folder = data_folder(address)
        key = (folder / "owner.key").read_text().strip()
        code = subprocess.call(  # noqa: S603 (our own command)
            [sys.executable, str(EXAMPLE)], env={**os.environ, "EASYML_TARGET": address, "EASYML_TOKEN": key}
        )
    except KeyboardInterrupt:
        code = 130
    finally:
        stop(server)
    if code == 0:
        print_next(folder)
    return code


def data_folder(address: str) -> Path:
    """Where that server keeps its data."""
    home = os.environ.get("EASYML_DATA_DIR")
    shared = os.environ.get("XDG_DATA_HOME")
    folder = Path(home) if home else (Path(shared) if shared else Path.home() / ".local" / "share") / "easyml"
    found = json.loads((folder / "server.json").read_text())["address"]
    if found != address:
        raise SystemExit(f"{folder} belongs to the server at {found}.")
    return folder


def stop(server: subprocess.Popen[str]) -> None:
    """As Ctrl-C does, which ends deployments too."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


def print_next(folder: Path) -> None:
    run = "" if os.environ.get("VIRTUAL_ENV") else ".venv/bin/"
    print(f"""The server was stopped. Projects, tables and models lie in {folder}.

Next:
  make serve                                              start a server that stays
  {run}easyml models versions --project quickstart            look at what was trained   (in another terminal)
  {run}easyml train --help                                    train something else
  {run}mlflow ui --backend-store-uri sqlite:///{folder}/mlflow/mlflow.db
                                                          look at the runs""")


if __name__ == "__main__":
    sys.exit(main())
