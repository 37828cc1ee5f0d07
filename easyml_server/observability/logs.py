"""Log lines on standard error: for people on a console, as JSON for machines. No rows, tokens or passwords."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from easyml_server.domain.secrets import redacted


def configure_logging(level: str, format: str) -> None:
    """Set up structlog and the standard library's logging to write the same lines."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
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
