"""Structured logs: one JSON object per line on stderr, with the model's version and without secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor

INTERACTION_TOKEN = re.compile(r"(/(?:webhooks|interactions)/\d+/)[^/\s\"?]+")
"""A webhook's or interaction's token in an address, as in errors and discord.py's own log messages."""
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""What every log record has; all other fields came as `extra`."""


def configure(
    level: str, secrets: Iterable[str], version: Callable[[], str], stream: TextIO = sys.stderr
) -> logging.Handler:
    """Send the messages of all loggers, including discord.py's, to `stream`.

    Args:
        level: name of the lowest level that is logged, such as INFO.
        secrets: texts to replace with [hidden] wherever they occur.
        version: returns the version of the model that is serving.
        stream: where the lines go.

    Returns:
        The handler, for the caller to remove.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(secrets, version))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # At lower levels these log every statement, with its values.
    for name in ("sqlalchemy", "aiosqlite", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # At DEBUG these log what people write.
    for name in ("discord.gateway", "discord.http", "discord.webhook"):
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    return handler


def _formatter(secrets: Iterable[str], version: Callable[[], str]) -> logging.Formatter:
    # Longest first: a secret may contain another one.
    hidden = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def add_model(_logger: Any, _name: str, values: EventDict) -> EventDict:
        values.setdefault("model", version())  # called for each line: the model may be replaced at any time
        return values

    def hide_secrets(_logger: Any, _name: str, line: str | bytes) -> str:
        text = line if isinstance(line, str) else line.decode()
        for secret in hidden:
            text = text.replace(secret, "[hidden]")
        return INTERACTION_TOKEN.sub(r"\1[hidden]", text)

    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_extra,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            add_model,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            # Last, on the finished line: a secret may be anywhere in it, such as in a traceback.
            hide_secrets,  # type: ignore[list-item]
        ],
    )


def _add_extra(_logger: Any, _name: str, values: EventDict) -> EventDict:
    """Copy the fields that a logging call passed as `extra`."""
    record: logging.LogRecord | None = values.get("_record")
    if record is not None:
        values.update({name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS})
    return values
