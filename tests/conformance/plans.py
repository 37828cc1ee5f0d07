"""What the engines say of how they would answer a statement, and the statements that repositories make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


@dataclass(frozen=True)
class Statement:
    """As it was sent to the engine."""

    text: str
    parameters: tuple[Any, ...] = field(hash=False)


@contextmanager
def recorded(engine: AsyncEngine) -> Iterator[list[Statement]]:
    """All that reads rows or looks for the ones it changes, while the block runs."""
    found: list[Statement] = []

    def record(_connection: Any, _cursor: Any, text: str, parameters: Any, _context: Any, many: bool) -> None:
        if not many and re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)\b", text):
            found.append(Statement(text, tuple(parameters)))

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    try:
        yield found
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", record)


async def scanned(connection: AsyncConnection, statement: Statement) -> set[str]:
    """The tables that the engine would read from the first row to the last."""
    if connection.dialect.name == "sqlite":
        found = [re.fullmatch(r"SCAN (\w+)", step) for step in await steps(connection, statement)]
        return {step[1] for step in found if step}
    return {node["Relation Name"] for node in await nodes(connection, statement) if node["Node Type"] == "Seq Scan"}


async def steps(connection: AsyncConnection, statement: Statement) -> list[str]:
    """SQLite's plan, in its own words."""
    plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.text}", statement.parameters)
    return [str(row.detail) for row in plan]


async def touched(connection: AsyncConnection, statement: Statement) -> int:
    """The buffers that PostgreSQL reads to answer."""
    top = (await nodes(connection, statement, "ANALYZE, BUFFERS, TIMING OFF"))[0]
    return int(top["Shared Hit Blocks"]) + int(top["Shared Read Blocks"])


async def nodes(connection: AsyncConnection, statement: Statement, options: str = "") -> list[dict[str, Any]]:
    """The steps of PostgreSQL's plan, the top one first."""
    explain = f"EXPLAIN ({', '.join(['FORMAT JSON', *options.split(', ')] if options else ['FORMAT JSON'])}) "
    found = (await connection.exec_driver_sql(explain + statement.text, statement.parameters)).scalar_one()
    plan = json.loads(found) if isinstance(found, str) else found
    return list(_below(plan[0]["Plan"]))


def _below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _below(child)
