"""Pixels -> what a frozen network tells of them, computed once and kept in the cache."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from stages.dataset.arrays import Ids, Progress, Rows, computed
from stages.inference.decoding import Pixels
from stages.inference.runtime import session
from stages.training.backbones import digest
from stages.training.export import FEATURES, PIXELS, export
from stages.training.stem import FrozenStem
from stages.workspace import cache

RULE = 1
"""Raise it when a `FrozenStem` gives other values for the same network."""
VIEWS_RULE = 1
"""Raise it when `views` changes pictures in another way."""
BATCH = 16


def graph(network: FrozenStem, shape: tuple[int, ...]) -> Path:
    """The frozen network as an ONNX file, from pictures of `shape` to features; exported once."""
    constants = (network.normalise.mean.flatten().tolist(), network.normalise.std.flatten().tolist())
    # Two networks may have the same tensors and differ in padding or activation: their text shows it.
    name = cache.key(digest(network), repr(network), constants, shape, RULE)
    return cache.once("graphs", f"{name}.onnx", lambda aside: export(network, aside, shape, (PIXELS, FEATURES)))


def extracted(pictures: Rows, network: FrozenStem, threads: int) -> Rows:
    """The frozen network's outputs: float32 rows, [values] or a map of them.

    They come from the very graph that is the model's first part when it serves; and on a CPU that is several times
    faster than torch.
    """
    return _computed(pictures, network, threads, "features", lambda _place, pixels: pixels)


class Streamed:
    """Rows of a graph's outputs for pictures, computed as they are taken and kept nowhere."""

    def __init__(self, graph: Path, pictures: Rows, threads: int) -> None:
        self._session = session(graph, threads)
        self._pictures = pictures

    def take(self, ids: Ids) -> NDArray[np.float32]:
        """As `Rows.take`."""
        parts = (self._pictures.take(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH))
        return np.concatenate([self._session.run(None, {PIXELS: part})[0] for part in parts])

    def each(self, ids: Ids) -> list[NDArray[np.float32]]:
        """As `Rows.each`."""
        return list(self.take(ids))


def viewed(pictures: Rows, network: FrozenStem, threads: int, number: int) -> Rows:
    """As `extracted`, of the pictures as view `number` of each: changed at random, and every time in the same way."""
    height, width, _ = pictures.shape
    change = views((height, width))

    def see(place: int, pixels: Pixels) -> Pixels:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(place + 1_000_003 * (number + 1))
            seen = [change(torch.from_numpy(each).permute(2, 0, 1)).permute(1, 2, 0).numpy() for each in pixels]
        return np.stack(seen)

    return _computed(pictures, network, threads, f"views-{number}", see, VIEWS_RULE)


def views(size: tuple[int, int]) -> v2.Transform:
    """What people do to pictures before they post them: mirrored, cut, framed, grey, other colours, packed anew."""
    framed = [
        v2.Compose([v2.RandomZoomOut(fill=grey, side_range=(1.0, 2.0), p=1.0), v2.Resize(size)])
        for grey in (0, 24, 128, 255)
    ]
    cut = v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3))
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomChoice([cut, v2.RandomChoice(framed), v2.Identity()], p=[0.4, 0.4, 0.2]),
            v2.RandomGrayscale(0.25),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2)], 0.3),
            v2.RandomApply([v2.Lambda(repacked)], 0.2),
        ]
    )


def repacked(picture: torch.Tensor) -> torch.Tensor:
    """A picture, uint8 [3, height, width], through a JPEG of a quality that is drawn; torchvision's own will go."""
    out = io.BytesIO()
    quality = int(torch.randint(25, 61, ()))
    v2.functional.to_pil_image(picture).save(out, "JPEG", quality=quality)
    found: torch.Tensor = v2.functional.pil_to_tensor(Image.open(out))
    return found


def _computed(
    pictures: Rows, network: FrozenStem, threads: int, kind: str, see: Callable[[int, Pixels], Pixels], *rules: object
) -> Rows:
    """Features of each batch of pixels as `see` changes it, given the place of its first picture in its shard."""
    file = graph(network, pictures.shape)
    run = session(file, threads)

    def write(place: int, done: Progress, aside: Path) -> None:
        pixels = pictures.arrays[place]
        found = []
        for start in range(0, len(pixels), BATCH):
            found.append(run.run(None, {PIXELS: see(start, np.array(pixels[start : start + BATCH]))})[0])
            done(len(found[-1]))
        with aside.open("wb") as file:
            np.save(file, np.concatenate(found))

    return computed(kind, [cache.key(file.stem, each, *rules) for each in pictures.names], pictures.ids, write)
