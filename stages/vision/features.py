"""Pixels -> what a frozen network tells of them, computed once and kept in the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.vision import cache
from stages.vision.backbones import Pooled, digest
from stages.vision.decoding import Done, Rows, computed
from stages.vision.export import FEATURES, PIXELS, export
from stages.vision.runtime import session

RULE = 1
"""Raise it when `stages.vision.backbones.Pooled` gives other values for the same network."""
BATCH = 16


def graph(network: Pooled, shape: tuple[int, ...]) -> Path:
    """The frozen network as an ONNX file, from pictures of `shape` to features; exported once."""
    constants = (network.normalise.mean.flatten().tolist(), network.normalise.std.flatten().tolist())
    # Two networks may have the same tensors and differ in padding or activation: their text shows it.
    name = cache.key(digest(network), repr(network), constants, shape, RULE)
    return cache.once("graphs", f"{name}.onnx", lambda aside: export(network, aside, shape, (PIXELS, FEATURES)))


def extracted(pictures: Rows, network: Pooled, threads: int) -> Rows:
    """The frozen network's outputs: float32 rows [values].

    They come from the very graph that is the model's first part when it serves; and on a CPU that is several times
    faster than torch.
    """
    file = graph(network, pictures.shape)
    run = session(file, threads)

    def write(place: int, done: Done, aside: Path) -> None:
        pixels = pictures.arrays[place]
        found = []
        for start in range(0, len(pixels), BATCH):
            found.append(run.run(None, {PIXELS: pixels[start : start + BATCH]})[0])
            done(len(found[-1]))
        with aside.open("wb") as file:
            np.save(file, np.concatenate(found))

    return computed("features", [cache.key(file.stem, each) for each in pictures.names], pictures.ids, write)
