"""What must not be written to the log, by whoever it is written."""

from __future__ import annotations

import io
import json
import logging

from bot.operation import logs


def written(*entries: object) -> str:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    stream = io.StringIO()
    try:
        logs.configure("DEBUG", ["s3cret"], lambda: "moderator@v1.0.0", stream)
        for entry in entries:
            logging.getLogger("anybody").error("%s", entry)
    finally:
        root.handlers = before
        root.setLevel(level)
    return stream.getvalue()


def test_a_secret_is_hidden() -> None:
    (line,) = written("the token is s3cret").splitlines()
    assert json.loads(line)["event"] == "the token is [hidden]"


def test_an_interactions_token_is_hidden_in_addresses() -> None:
    text = written(
        "PATCH http://127.0.0.1:1/api/v10/webhooks/123/aW50ZXJhY3Rpb24/messages/@original failed",
        "POST https://discord.com/api/v10/interactions/456/aW50ZXJhY3Rpb24/callback",
        "https://discord.com/api/webhooks/789/aW50ZXJhY3Rpb24",
    )
    assert "aW50ZXJhY3Rpb24" not in text
    assert "/webhooks/123/[hidden]/messages/@original failed" in text


def test_every_line_names_the_model() -> None:
    assert {json.loads(line)["model"] for line in written("a", "b").splitlines()} == {"moderator@v1.0.0"}
