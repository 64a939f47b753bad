"""A font of colour emoji: a PNG a glyph (table CBDT), and ligatures of several characters for flags and people."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from fontTools.ttLib import TTFont

from stages.sample.readers.files import Drawings

REGIONAL = "regional indicator symbol letter "
JOINERS = ("zero width joiner", "variation selector-16")
TONE = "emoji modifier fitzpatrick "
TAG = "tag latin small letter "


def drawings(files: Mapping[str, bytes]) -> Drawings:
    """The emoji by the names of their characters, joined by +, for example `beer mug`, `flag fr`, `man+type-4`."""
    (data,) = (body for path, body in files.items() if path.endswith(".ttf"))
    font = TTFont(io.BytesIO(data), lazy=True)
    bitmaps = font["CBDT"].strikeData[0]
    characters = {glyph: chr(code) for code, glyph in font.getBestCmap().items()}
    glyphs = {_name(character): glyph for glyph, character in characters.items()}
    for text, glyph in _ligatures(font, characters):
        glyphs[_name(text)] = glyph
    return {
        name: partial(_picture, bitmaps[glyph]) for name, glyph in sorted(glyphs.items()) if name and glyph in bitmaps
    }


def _picture(bitmap: Any) -> bytes:
    return bytes(bitmap.imageData)


def _ligatures(font: TTFont, characters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The characters and the glyph of every ligature."""
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, ligatures in getattr(table, "ligatures", {}).items():
                for ligature in ligatures:
                    parts = [first, *ligature.Component]
                    if all(part in characters for part in parts):
                        yield "".join(characters[part] for part in parts), ligature.LigGlyph


def _name(text: str) -> str:
    """The name of an emoji; "" if this version of Python does not know a character."""
    names = [unicodedata.name(character, "").lower() for character in text]
    if not all(names):
        return ""
    if all(name.startswith(REGIONAL) for name in names):
        return f"flag {''.join(name.removeprefix(REGIONAL) for name in names)}"
    return "+".join(name.removeprefix(TONE).removeprefix(TAG) for name in names if name not in JOINERS)
