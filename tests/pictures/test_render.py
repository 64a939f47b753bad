"""The picture of a review entry is drawn from the message that the bot really sends."""

from __future__ import annotations

from pathlib import Path

from tiny import red, redness

from bot.actions.review import CHOICES
from tests.pictures.render import posted


async def test_an_entry_is_drawn_with_its_picture_and_buttons(tmp_path: Path) -> None:
    page = await posted(redness(tmp_path / "moderator.onnx"), red(), tmp_path)
    assert "data:image/jpeg;base64," in page
    assert "@alice" in page
    assert "#general › message" in page  # noqa: RUF001
    assert [choice.label for choice in CHOICES.values() if f">{choice.label}</span>" not in page] == []
