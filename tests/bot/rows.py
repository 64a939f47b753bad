"""Rows of the bot's database."""

from __future__ import annotations

from typing import Any

from bot.storage.tables import Decision, PictureScores, Ruling


def decision(number: int = 1, **changes: Any) -> Decision:
    values: dict[str, Any] = {
        "id": f"{number:032x}",
        "guild_id": 10,
        "channel_id": 20,
        "message_id": 1000 + number,
        "picture": "attachment:1",
        "user_id": 30,
        "sha256": f"{number:064x}",
        "phash": 2**64 - number,
        "verdict": "flagged",
        "label": "flagged",
        "score": 0.1 + 0.2,
        "threshold": 0.3,
        "scores": {"flagged": 0.1 + 0.2, "clean": 1 / 3},
        "action": 3,
        "done": 1,
        "origin": "model",
        "model": "moderator@v1.2.0",
        "detail": "Größe 🐎",
        "created_at": 5_000_000_000 + number,
    }
    return Decision(**{**values, **changes})


def ruling(number: int = 1, **changes: Any) -> Ruling:
    values = {"guild_id": 10, "sha256": f"{number:064x}", "phash": 2**63, "allowed": True, "label": "flagged"}
    return Ruling(**{**values, "created_at": 1000, **changes})


def scored(number: int = 1, **changes: Any) -> PictureScores:
    values = {"sha256": f"{number:064x}", "md5": "m" * 32, "phash": 2**64 - 1, "scores": {"a": 0.1 + 0.2}}
    return PictureScores(**{**values, **changes})
