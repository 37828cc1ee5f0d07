"""Log lines on standard error: for people on a console, as JSON for machines. No rows, tokens or passwords."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from easyml_server.domain.secrets import redacted


class _StandardError(structlog.WriteLogger):
    """Writes the lines of one module."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name


def configure_logging(level: str, format: str) -> None:
    """Have structlog and the standard library's logging write the same lines.

    Our own do not pass through the standard library, which takes five times as long for each.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=_StandardError,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # These tell of every statement and socket, and PyMongo of what is in it.
    for name in ("alembic", "sqlalchemy", "aiosqlite", "asyncio", "pymongo"):
        logging.getLogger(name).setLevel(logging.WARNING)


def redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take out what looks like a secret; escape newlines, so that no value can pretend to be a line."""
    for key, value in event.items():
        if isinstance(value, str):
            cleaned = redacted(value)
            event[key] = cleaned if key == "exception" else cleaned.replace("\n", "\\n").replace("\r", "\\r")
    return event
