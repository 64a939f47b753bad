"""AisleRiot's decks of cards: an SVG a deck, in which the cards lie in 13 columns and 5 rows."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from functools import cache, partial

import resvg_py
from PIL import Image

from stages.sample.readers.files import Drawings, png

COLUMNS, ROWS = 13, 5
RANKS = ("ace", *map(str, range(2, 11)), "jack", "queen", "king")
SUITS = ("club", "diamond", "heart", "spade")
WIDTH = 160
"""Of a card, in px."""


def drawings(files: Mapping[str, bytes]) -> Drawings:
    """The cards as `anglo/heart-queen`, without jokers and backs."""
    return {
        f"{path.removesuffix('.svgz')}/{suit}-{rank}": partial(_card, files[path], column, row)
        for path in files
        if path.endswith(".svgz")
        for row, suit in enumerate(SUITS)
        for column, rank in enumerate(RANKS)
    }


@cache
def _sheet(data: bytes) -> Image.Image:
    """The rendered deck, which takes half a second."""
    drawing = gzip.decompress(data).decode()
    # Without the system's fonts, which differ from machine to machine.
    file = resvg_py.svg_to_bytes(svg_string=drawing, width=COLUMNS * WIDTH, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(file)))


def _card(data: bytes, column: int, row: int) -> bytes:
    sheet = _sheet(data)
    width, height = sheet.width / COLUMNS, sheet.height / ROWS
    left, right = round(column * width), round((column + 1) * width)
    return png(sheet.crop((left, round(row * height), right, round((row + 1) * height))))
