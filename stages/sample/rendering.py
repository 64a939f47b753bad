"""Smaller versions of pictures, rendered on first request and cached."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import Image

from stages.philomena import addresses
from stages.workspace.files import replacing


@dataclass(frozen=True)
class Renderings:
    """A folder of rendered versions."""

    folder: Path

    @classmethod
    def within(cls, folder: Path) -> Renderings:
        """A folder below `folder` for this code and this version of Pillow: others may render differently."""
        code = hashlib.sha256(Path(__file__).read_bytes() + PIL.__version__.encode()).hexdigest()[:16]
        return cls(folder / f"versions-{code}")

    def version(self, name: str, source: Path, version: str) -> Path:
        """The file of a picture's version; rendered from `source` if it is missing, which takes up to a second."""
        target = self.folder / version / name
        if not target.exists():
            with replacing(target) as aside:
                render(source, aside, addresses.VERSIONS[version])
        return target


def render(source: Path, target: Path, box: tuple[int, int]) -> None:
    """Scale a PNG into a box (width, height), keeping aspect ratio and transparency."""
    with Image.open(source) as image:
        image.load()
        # Palette indices cannot be interpolated.
        scaled = image.convert("RGBA" if image.has_transparency_data else "RGB") if image.mode == "P" else image
        scaled.thumbnail(box, Image.Resampling.LANCZOS)
        # The lowest compression is three times faster, and size does not matter over loopback.
        scaled.save(target, format="PNG", compress_level=1)
