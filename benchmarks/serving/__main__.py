"""EasyML's model server beside a bare echo and other Python servers: same model, same rows, one run, by turns."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pandas as pd

from benchmarks.predict import METHOD, USER, process, table
from benchmarks.servers import MeasuredServer, serving
from benchmarks.serving.asking import GrpcAddress, load
from benchmarks.serving.environments import NAMES, NotInstalled, environments, version
from benchmarks.serving.exchange import exchange
from benchmarks.serving.first_answer import first_answer
from benchmarks.serving.memory import memory
from benchmarks.serving.models import Stored, trained
from benchmarks.serving.questions import Question, typed_columns
from benchmarks.serving.results import ECHO, Cell, Measured, Part, result, save, save_parts
from benchmarks.serving.results import table as written
from benchmarks.serving.servers import DidNotStart, Serving, peer
from easyml_server.security.tokens import Ed25519Signer

CONNECTIONS = (1, 16, 64)
ROWS = (1, 1_000)
ROUNDS = 3
DIFFERENT = 0.005
"""Predictions that may differ from EasyML's: graphs compute in 32 bits, and a few rows lie on a border."""
MEMORY, EXCHANGE, FIRST_ANSWER = PARTS = ("memory", "exchange", "first-answer")
"""Of the model server alone; each may be measured by itself, and is saved beside what was there."""


def say(what: str) -> None:
    """How it goes."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


async def measured(
    stored: Stored,
    server: MeasuredServer,
    peers: dict[str, Path],
    scratch: Path,
    missing: dict[str, str],
    seconds: float,
) -> list[Cell]:
    """All cells of one model."""
    frame = table().drop(columns="target")
    async with AsyncExitStack() as stack:
        servers = _ours(stored, server, stack)
        for name, binaries in peers.items():
            try:
                entered = peer(name, binaries, stored.folder, scratch, frame[:1])
                servers.append(await stack.enter_async_context(entered))
            except DidNotStart as error:
                missing[name] = f"it did not start: {error}"
            say(f"{stored.name}: {name} {'is missing' if name in missing else 'answers'}")
        cells = []
        for rows in ROWS:
            await _compare(servers, frame[:rows])
            for connections in CONNECTIONS:
                cells.append(await _cell(stored.name, servers, frame[:rows], connections, seconds))
    return cells


def _ours(stored: Stored, server: MeasuredServer, stack: AsyncExitStack) -> list[Serving]:
    """The echo, the model server, and the main port before another one."""

    def question(rows: pd.DataFrame) -> Question:
        return typed_columns(rows, stored.version_id)

    signer = Ed25519Signer(server.folder / "keys")
    direct = stack.enter_context(
        process(
            "easyml_server.serving",
            f"--model={stored.version_id}={stored.folder}",
            f"--jwks={signer.jwks_path}",
            f"--audience={stored.version_id}",
        )
    )

    def token() -> str:
        return signer.sign_identity(USER, stored.version_id, datetime.now(UTC))

    return [
        Serving(ECHO, GrpcAddress(stack.enter_context(process("benchmarks.echo")), METHOD), question),
        Serving("easyml", GrpcAddress(direct, METHOD, token), question),
        Serving(
            "easyml, main port",
            GrpcAddress(server.target, METHOD, lambda: server.token),
            question,
        ),
    ]


async def _compare(servers: Sequence[Serving], rows: pd.DataFrame) -> None:
    """All say the same of the rows, or this compares nothing."""
    said: dict[str, list[str]] = {}
    for each in servers:
        if each.name == ECHO:
            continue
        asked = each.question(rows)
        async with each.address.connect() as ask:
            said[each.name] = asked.read(await ask(asked.body))
    ours = said["easyml"]
    for name, theirs in said.items():
        different = sum(mine != other for mine, other in zip(ours, theirs, strict=True))
        if different > DIFFERENT * len(ours):
            raise SystemExit(f"{name} predicts otherwise for {different} of {len(ours)} rows")


async def _cell(model: str, servers: Sequence[Serving], rows: pd.DataFrame, connections: int, seconds: float) -> Cell:
    bodies = {each.name: each.question(rows).body for each in servers}
    found = {each.name: Measured() for each in servers}
    for _round in range(ROUNDS):
        for each in servers:
            if found[each.name].failed:
                continue
            try:
                took, lasted = await load(each.address, bodies[each.name], connections, seconds)
            except grpc.aio.AioRpcError as error:
                found[each.name].failed = f"{error.code().name}: {error.details()}"
            except Exception as error:  # whatever a server makes of so many callers is a result
                found[each.name].failed = f"{type(error).__name__}: {error}"
            else:
                found[each.name].add(took, lasted)
    cell = Cell(model, len(rows), connections, found)
    speeds = (f"{name} {max(each.per_second, default=0):,.0f}" for name, each in found.items())
    say(f"{model}, {len(rows)} rows, {connections} connections: {', '.join(speeds)} a second")
    return cell


def main(only: Sequence[str], seconds: float) -> None:
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wanted = [name for name in NAMES if not only or name in only]
        peers: dict[str, Path] = {}
        say("installing peers, where they are not")
        for name, found in environments(wanted, Path(os.environ["CACHE"])).items():
            if isinstance(found, NotInstalled):
                missing[name] = f"it does not install: {found.reason}"
            else:
                peers[name] = found
        server = stack.enter_context(serving(scratch / "data", workers="1"))
        stored = trained(server)
        cells = []
        for model in stored if not only or peers else []:
            cells += asyncio.run(measured(model, server, peers, scratch, missing, seconds))
        parts = alone([part for part in PARTS if not only or part in only], stored, server)
    found = result(cells, parts, {name: version(name) for name in peers}, missing, seconds, ROUNDS)
    if not only:
        save(found)
    elif set(only) <= set(PARTS):
        found = save_parts(parts)
    sys.stdout.write(f"\n{written(found)}")


def alone(wanted: Sequence[str], stored: Sequence[Stored], server: MeasuredServer) -> dict[str, Part]:
    """What is measured of the model server without others."""
    measure: dict[str, Callable[[], Part]] = {
        MEMORY: lambda: memory(stored),
        EXCHANGE: lambda: exchange(stored),
        FIRST_ANSWER: lambda: first_answer(stored, server),
    }
    parts = {}
    for name in wanted:
        say(f"measuring {name}")
        parts[name] = measure[name]()
    return parts


if __name__ == "__main__":
    known = (*NAMES, *PARTS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument(
        "only", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all, and saved, if none is given; parts"
    )
    given = parser.parse_args()
    if unknown := set(given.only) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    main(given.only, given.seconds)
