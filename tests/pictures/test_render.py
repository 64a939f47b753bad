"""The picture of a review entry is drawn from the message that the bot really sends."""

from __future__ import annotations

from pathlib import Path

from tiny import blue, red, redness

from bot.actions.review import CHOICES
from tests.pictures.render import posted


async def test_an_entry_is_drawn_with_its_picture_and_buttons(tmp_path: Path) -> None:
    page = await posted(redness(tmp_path / "moderator.onnx"), red(), tmp_path)
    assert "data:image/jpeg;base64," in page
    assert "@alice" in page
    assert "#general › message" in page  # noqa: RUF001
    assert [choice.label for choice in CHOICES.values() if f">{choice.label}</span>" not in page] == []


async def test_an_entry_about_a_wave_is_drawn_with_its_links(tmp_path: Path) -> None:
    page = await posted(redness(tmp_path / "moderator.onnx"), blue(), tmp_path, wave=True)
    assert "Wave: 5 messages in 5 channels" in page
    assert "Deleted 5 messages. Author timed out for 60 minutes." in page
    assert "#music › message" in page  # noqa: RUF001
    assert ">Undo</span>" in page
