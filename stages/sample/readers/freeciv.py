"""Freeciv's picture files, and the units that its sheets hold: a `.spec` beside a sheet names each cell."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from functools import partial

from PIL import Image

from stages.sample.readers import files as picture_files
from stages.sample.readers.files import Drawings, png

SHEETS = ("amplio2/units", "trident/units")
GRID = re.compile(r"^(x_top_left|y_top_left|dx|dy|pixel_border)\s*=\s*(\d+)", re.MULTILINE)
CELL = re.compile(r'^\s*(\d+),\s*(\d+),\s*"u\.(\w+)"', re.MULTILINE)


def drawings(files: Mapping[str, bytes]) -> Drawings:
    """The files by their paths without endings, and the cells as `amplio2/units/archers`."""
    found = picture_files.drawings(files)
    for sheet in SHEETS:
        found |= _cells(sheet, files[f"{sheet}.spec"].decode(), files[f"{sheet}.png"])
    return found


def _cells(sheet: str, spec: str, data: bytes) -> Drawings:
    """The cells of a sheet with one grid."""
    grid = {key: int(value) for key, value in GRID.findall(spec)}
    border = grid.get("pixel_border", 0)
    found: Drawings = {}
    for row, column, unit in CELL.findall(spec):
        left = grid["x_top_left"] + int(column) * (grid["dx"] + border)
        top = grid["y_top_left"] + int(row) * (grid["dy"] + border)
        found[f"{sheet}/{unit}"] = partial(_cut, data, (left, top, left + grid["dx"], top + grid["dy"]))
    return found


def _cut(sheet: bytes, box: tuple[int, int, int, int]) -> bytes:
    with Image.open(io.BytesIO(sheet)) as image:
        return png(image.convert("RGBA").crop(box))
