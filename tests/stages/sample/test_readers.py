"""Packages' ways to keep pictures: plain files, an archive, sheets, decks of cards, fonts."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont, newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import BitmapSizeTable, SbitLineMetrics, Strike, eblc_index_sub_table_1
from PIL import Image

from stages.sample.readers import crossfire, decks, emoji, files, freeciv, glyphs


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    image.load()
    return image


SMALL = encoded(Image.new("P", (20, 17), 3))


def test_png_files_are_taken_as_they_are_and_jpegs_become_png() -> None:
    photo = encoded(Image.new("RGB", (2560, 1000), (200, 10, 10)), "JPEG")
    drawings = files.drawings({"a/b.c.png": SMALL, "d.jpg": photo, "e.txt": b"no", "f": b"no", "g.svg": b"no"})
    assert drawings.keys() == {"a/b.c", "d"}
    assert drawings["a/b.c"]() == SMALL
    converted = opened(drawings["d"]())
    assert (converted.size, converted.mode) == ((1280, 500), "RGB")


def test_an_archive_of_crossfire_is_read_to_its_end() -> None:
    bodies = {"./arch/food/wine.111": SMALL, "./arch/x/y.x11": b"GIF89a no png", "./arch/weapon/axe.111": SMALL + b"\n"}
    archive = b"".join(f"IMAGE {len(data)} {path}\n".encode() + data for path, data in bodies.items())
    drawings = crossfire.drawings({"crossfire.base": archive, "README": b"no"})
    assert {name: draw() for name, draw in drawings.items()} == {
        "food/wine.111": SMALL,
        "weapon/axe.111": SMALL + b"\n",
    }


SPEC = """
[grid_main]
x_top_left = 1
y_top_left = 2
dx = 20
dy = 10
pixel_border = {border}
tiles = {{ "row", "column", "tag"
  0,  0, "u.armor"	; [Somebody] 9, 9, "u.comment"
  1,  1, "u.ships"
;  0, 1, "u.off"
  1,  0, "t.no_unit"
}}
"""


@pytest.mark.parametrize("border", [0, 3])
def test_the_cells_of_freecivs_sheets_have_their_units_names(border: int) -> None:
    sheet = np.zeros((60, 80, 4), np.uint8)
    sheet[2:12, 1:21] = (255, 0, 0, 255)
    top, left = 2 + 10 + border, 1 + 20 + border
    sheet[top : top + 10, left : left + 20] = (0, 0, 255, 255)
    spec, image = SPEC.format(border=border).encode(), encoded(Image.fromarray(sheet))
    both = {f"{name}.{ending}": body for name in freeciv.SHEETS for ending, body in (("spec", spec), ("png", image))}
    drawings = freeciv.drawings({**both, "flags/x-large.png": SMALL})
    cells = {f"{name}/{unit}" for name in freeciv.SHEETS for unit in ("armor", "ships")}
    assert drawings.keys() == {*cells, *freeciv.SHEETS, "flags/x-large"}
    for unit, colour in (("armor", (255, 0, 0, 255)), ("ships", (0, 0, 255, 255))):
        cell = opened(drawings[f"{freeciv.SHEETS[0]}/{unit}"]())
        assert cell.size == (20, 10)
        assert cell.getcolors() == [(200, colour)]


def test_a_decks_cards_are_cut_from_its_drawing() -> None:
    cards = "".join(
        f'<rect x="{10 * column}" y="{20 * row}" width="10" height="20" fill="rgb({column * 10},{row * 50},7)"/>'
        for row in range(5)
        for column in range(13)
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="130" height="100">{cards}</svg>'
    drawings = decks.drawings({"plain.svgz": gzip.compress(svg.encode()), "README": b"no"})
    assert len(drawings) == 52
    card = opened(drawings["plain/heart-queen"]())
    assert card.size == (decks.WIDTH, 2 * decks.WIDTH)
    assert card.convert("RGB").getpixel((80, 160)) == (110, 100, 7)
    assert opened(drawings["plain/club-ace"]()).convert("RGB").getpixel((1, 1)) == (0, 0, 7)


CHARACTERS = {"glyph1": 0x1F37A, "glyph2": 0x1F1EB, "glyph3": 0x1F1F7, "glyph4": 0x1F468, "glyph5": 0x1F3FD}
LIGATURES = """
feature ccmp {
    sub glyph2 glyph3 by flag;
    sub glyph4 glyph5 by tone;
} ccmp;
"""


LINE_METRICS = (
    *("ascender", "descender", "widthMax", "caretSlopeNumerator", "caretSlopeDenominator", "caretOffset"),
    *("minOriginSB", "minAdvanceSB", "maxBeforeBL", "minAfterBL", "pad1", "pad2"),
)


def square_font(cmap: dict[int, str], names: list[str]) -> FontBuilder:
    """A font whose every glyph is a square of half an em."""
    pen = TTGlyphPen(None)
    for step, point in enumerate(((0, 0), (0, 500), (500, 500), (500, 0))):
        (pen.lineTo if step else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(cmap)
    builder.setupGlyf(dict.fromkeys([".notdef", *names], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    return builder


def saved(font: TTFont) -> bytes:
    file = io.BytesIO()
    font.save(file)
    return file.getvalue()


def emoji_font() -> bytes:
    names = [*CHARACTERS, "flag", "tone"]
    builder = square_font({code: name for name, code in CHARACTERS.items()}, names)
    builder.addOpenTypeFeatures(LIGATURES)
    font = builder.font
    bitmaps = {}
    for number, name in enumerate(names):
        glyph = bitmaps[name] = cbdt_bitmap_format_17(b"", font)
        glyph.metrics = SmallGlyphMetrics()
        for field in ("height", "width", "BearingX", "BearingY", "Advance"):
            setattr(glyph.metrics, field, 16)
        glyph.imageData = encoded(Image.new("RGB", (16, 16), (number, 0, 0)))
    font["CBDT"], font["CBLC"] = newTable("CBDT"), newTable("CBLC")
    font["CBDT"].version = font["CBLC"].version = 3.0
    font["CBDT"].strikeData = [bitmaps]
    strike = Strike()
    strike.bitmapSizeTable = size = BitmapSizeTable()
    size.hori, size.vert = SbitLineMetrics(), SbitLineMetrics()
    for line in (size.hori, size.vert):
        vars(line).update(dict.fromkeys(LINE_METRICS, 0))
    size.colorRef, size.flags, size.ppemX, size.ppemY, size.bitDepth = 0, 1, 16, 16, 32
    size.startGlyphIndex, size.endGlyphIndex = 1, len(names)
    index = eblc_index_sub_table_1(b"", font)
    index.firstGlyphIndex, index.lastGlyphIndex, index.indexFormat, index.imageFormat = 1, len(names), 1, 17
    index.names = names
    strike.indexSubTables = [index]
    font["CBLC"].strikes = [strike]
    return saved(font)


def test_emoji_have_their_characters_names_and_flags_and_tones_are_ligatures() -> None:
    drawings = emoji.drawings({"NotoColorEmoji.ttf": emoji_font(), "copyright": b"no"})
    reds = {name: opened(draw()).getpixel((0, 0))[0] for name, draw in drawings.items()}
    assert reds.items() >= {"beer mug": 0, "man": 3, "flag fr": 5, "man+type-4": 6}.items()


def test_symbols_are_black_on_transparent_ground_under_unicodes_names_or_the_fonts() -> None:
    font = square_font({0x1F0A1: "u1F0A1", 0xF101: "glass-wine"}, ["u1F0A1", "glass-wine"])
    drawings = glyphs.drawings({"a/symbols.ttf": saved(font.font), "a/readme": b"no"})
    assert drawings.keys() == {"playing card ace of spades", "glass-wine"}
    for draw in drawings.values():
        pixels = np.asarray(opened(draw()))
        assert pixels[..., 0].max() == 0
        shape = pixels[..., 1] > 128
        assert shape.sum() == pytest.approx((glyphs.SIZE / 2) ** 2, rel=0.05)
        assert not shape[: glyphs.MARGIN - 1].any()
        assert not shape[:, : glyphs.MARGIN - 1].any()
