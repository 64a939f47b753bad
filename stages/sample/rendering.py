"""Smaller versions of pictures, made when first asked for and kept."""

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
    """Versions of pictures, kept in a folder."""

    folder: Path

    @classmethod
    def within(cls, folder: Path) -> Renderings:
        """Kept below `folder`, apart from what other code or another Pillow made."""
        code = hashlib.sha256(Path(__file__).read_bytes() + PIL.__version__.encode()).hexdigest()[:16]
        return cls(folder / f"versions-{code}")

    def version(self, name: str, source: Path, version: str) -> Path:
        """The file of a picture's version, made from `source` if it is not there yet. Takes up to a second."""
        target = self.folder / version / name
        if not target.exists():
            with replacing(target) as aside:
                render(source, aside, addresses.VERSIONS[version])
        return target


def render(source: Path, target: Path, box: tuple[int, int]) -> None:
    """Scale a PNG into a box, aspect and transparency kept."""
    with Image.open(source) as image:
        image.load()
        whole = image.convert("RGBA" if image.has_transparency_data else "RGB") if image.mode == "P" else image
        whole.thumbnail(box, Image.Resampling.LANCZOS)
        # A PNG of little effort: three times as quick, and it is sent over loopback.
        whole.save(target, format="PNG", compress_level=1)
