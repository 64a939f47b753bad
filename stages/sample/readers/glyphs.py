"""A font of symbols: each glyph as a black drawing on transparent ground."""

from __future__ import annotations

import io
import logging
import unicodedata
from collections.abc import Mapping
from functools import cache, partial

from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from stages.sample.readers.files import Drawings, png

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of a font's stray bytes
SIZE = 200
"""Of the font, in px."""
MARGIN = 20
PRIVATE = "Co"
"""Unicode's category of characters that have no name but the font's own."""


def drawings(files: Mapping[str, bytes]) -> Drawings:
    """The glyphs by the names of their characters, or by the font's names for them where Unicode has none."""
    (data,) = (body for path, body in files.items() if path.endswith(".ttf"))
    names = TTFont(io.BytesIO(data), lazy=True).getBestCmap()
    return {
        (glyph if unicodedata.category(chr(code)) == PRIVATE else unicodedata.name(chr(code), "").lower()): partial(
            _picture, data, chr(code)
        )
        for code, glyph in names.items()
    }


@cache
def _font(data: bytes) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(io.BytesIO(data), SIZE, layout_engine=ImageFont.Layout.BASIC)


def _picture(data: bytes, character: str) -> bytes:
    left, top, right, bottom = _font(data).getbbox(character)
    image = Image.new("LA", (round(right - left) + 2 * MARGIN, round(bottom - top) + 2 * MARGIN))
    shape = Image.new("L", image.size)
    ImageDraw.Draw(shape).text((MARGIN - left, MARGIN - top), character, font=_font(data), fill=255)
    image.putalpha(shape)
    return png(image)
