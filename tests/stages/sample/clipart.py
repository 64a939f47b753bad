"""A tiny Open Clip Art Library: two packages with the mess that the real ones have."""

from __future__ import annotations

import html
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import debs
import numpy as np
from PIL import Image

from stages.sample.debian import Package

INSIDE = "usr/share/openclipart"
PUBLIC = "http://web.resource.org/cc/PublicDomain"
BY_SA = "http://creativecommons.org/licenses/by-sa/2.0/"


@dataclass(frozen=True)
class Drawing:
    """A picture, and what its SVG says."""

    mode: str
    size: tuple[int, int]
    tags: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()
    licence: str | None = PUBLIC
    """None: the SVG has no metadata."""
    title: str = "A drawing"


DRAWINGS = {
    "animals/cat": Drawing("P", (60, 40), ("Cat", "animal"), ("Zoe <zoe@example.org>",), title="The cat"),
    "animals/dog": Drawing("LA", (51, 33), ("dog", "animal, pet"), ("Ann, Bob",)),
    "animals/frog": Drawing("RGB", (1, 7), ("frog",), ("mailto:ann@example.org",)),
    "buildings/tower": Drawing("RGBA", (40, 1200), ("tower", " high \n  tower ")),
    "food/wine": Drawing("RGB", (800, 600), ("wine", "champagne"), ("unknown",)),
    "people/card": Drawing("L", (400, 300), ("people", "card &amp; dice"), ("Zoe",)),
    "people/woman": Drawing("RGBA", (1300, 1100), ("woman", "girls"), ("hash(0x84c5a1c)",)),
    "recreation/junk": Drawing("RGB", (64, 64), ("hash(0x8a3b2c)",), ("Ann",)),
    "signs/flag": Drawing("P", (321, 200), ("Étoile", "flags"), ("Žofie",)),
    "special/huge": Drawing("L", (6000, 3500), ("map",), ("Zoe",)),
    "tools/clip": Drawing("RGB", (300, 200), ("clip",), ("Ann",), licence=BY_SA),
    "tools/mute": Drawing("L", (20, 20), licence=None),
    "weapons/sword": Drawing("RGBA", (260, 100), ("swords", "gun"), ("Bob",)),
    # left out
    "computer/icons/disk": Drawing("RGB", (16, 16), ("icon",)),
    "shapes/stars/star": Drawing("L", (16, 16), ("star",)),
}
SHOWN = tuple(name for name in DRAWINGS if not name.startswith(("computer/", "shapes/", "tools/")))
LINKS = {
    "animals/kitty": "cat",
    "people/lady": "../people/woman",
    "pets/kitten": "../animals/kitty",
    "signs/star": "../shapes/stars/star",
    "weapons/katana": "sword",
}
"""A link's own metadata are those of what it points to; `weapons/katana` has an SVG of its own. One leads nowhere."""
KATANA = Drawing("RGBA", (0, 0), ("katana",), ("Eve",))


def picture(name: str, drawing: Drawing) -> Image.Image:
    """Coarse blocks of colours that follow from the name, a third of them transparent in modes that know of it."""
    chance = np.random.default_rng(zlib.crc32(name.encode()))
    blocks = chance.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    blocks[..., 3] = chance.choice(np.array([0, 100, 255], dtype=np.uint8), (5, 7))
    image = Image.fromarray(blocks).resize(drawing.size, Image.Resampling.NEAREST)
    if drawing.mode == "P":
        image = image.convert("RGB").quantize(16)
        image.info["transparency"] = 3
        return image
    if drawing.mode == "LA":
        return Image.merge("LA", (image.convert("RGB").convert("L"), image.getchannel("A")))
    return image if drawing.mode == "RGBA" else image.convert("RGB").convert(drawing.mode)


def png(name: str, drawing: Drawing) -> bytes:
    file = io.BytesIO()
    image = picture(name, drawing)
    image.save(file, "PNG", compress_level=1, **image.info)
    return file.getvalue()


def svg(drawing: Drawing) -> bytes:
    """A drawing's file as Open Clip Art has it."""
    start = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10">'
    if drawing.licence is None:
        return f"{start}<g/></svg>".encode()
    tags = "".join(f"<rdf:li>{html.escape(tag)}</rdf:li>" for tag in drawing.tags)
    agents = "".join(
        f"<dc:creator><cc:Agent><dc:title>{html.escape(name)}</dc:title></cc:Agent></dc:creator>"
        for name in drawing.creators
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
{start}<metadata>
<rdf:RDF xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><cc:Work rdf:about="">
<dc:title>{drawing.title}</dc:title><dc:description>Drawn
    by hand</dc:description><dc:subject><rdf:Bag>{tags}</rdf:Bag></dc:subject>
<dc:publisher><cc:Agent><dc:title>Open Clip Art</dc:title></cc:Agent></dc:publisher>{agents}
<dc:format>image/svg+xml</dc:format><cc:license rdf:resource="{drawing.licence}"/><dc:language>en</dc:language>
</cc:Work></rdf:RDF></metadata><g/></svg>""".encode()


def packages(folder: Path) -> tuple[Package, Package]:
    """Put the library's two packages into a folder: one packed with gz, one with xz."""
    pictures = {f"{INSIDE}/png/{name}.png": png(name, drawing) for name, drawing in DRAWINGS.items()}
    pictures |= {"usr/share/doc/readme.png": b"no picture", f"{INSIDE}/png/index.txt": b"no picture"}
    drawings = {f"{INSIDE}/svg/{name}.svg": svg(drawing) for name, drawing in DRAWINGS.items()}
    drawings[f"{INSIDE}/svg/weapons/katana.svg"] = svg(KATANA)
    links = {kind: {f"{INSIDE}/{kind}/{name}.{kind}": f"{to}.{kind}" for name, to in LINKS.items()} for kind in KINDS}
    del links["svg"][f"{INSIDE}/svg/weapons/katana.svg"]
    built = []
    for kind, files, packing in (("png", pictures, "gz"), ("svg", drawings, "xz")):
        body = debs.deb(files, links[kind], packing)
        built.append(debs.package(f"tinyclipart-{kind}", body))
        debs.put(folder, built[-1], body)
    return built[0], built[1]


KINDS = ("png", "svg")
