"""One JSON object a line on stderr: what happened, with which model. No secret gets through."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor

OF_INTERACTIONS = re.compile(r"(/(?:webhooks|interactions)/\d+/)[^/\s\"?]+")
"""Tokens in the addresses of webhooks and interactions, which errors and discord.py's own entries may name."""
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def configure(
    level: str, secrets: Iterable[str], version: Callable[[], str], stream: TextIO = sys.stderr
) -> logging.Handler:
    """Send every logger's entries, discord.py's too, to `stream`.

    Args:
        level: such as INFO.
        secrets: texts that are blotted out wherever they turn up.
        version: gives the version of the model that is served.
        stream: where to.

    Returns:
        The handler, so that it can be removed.
    """
    hidden = sorted({each for each in secrets if each}, key=len, reverse=True)
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _extra,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]

    def serving(_logger: Any, _name: str, values: EventDict) -> EventDict:
        values.setdefault("model", version())
        return values

    def blot(_logger: Any, _name: str, line: str | bytes) -> str:
        text = line if isinstance(line, str) else line.decode()
        for secret in hidden:
            text = text.replace(secret, "[hidden]")
        return OF_INTERACTIONS.sub(r"\1[hidden]", text)

    handler = logging.StreamHandler(stream)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            serving,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            blot,  # type: ignore[list-item]
        ],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("sqlalchemy", "aiosqlite", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("discord.gateway", "discord.http", "discord.webhook"):  # at DEBUG these tell what people write
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    return handler


def _extra(_logger: Any, _name: str, values: EventDict) -> EventDict:
    """What a call gave as `extra`."""
    record: logging.LogRecord | None = values.get("_record")
    if record is not None:
        values.update({name: value for name, value in vars(record).items() if name not in STANDARD})
    return values
