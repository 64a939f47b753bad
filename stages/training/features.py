"""Pixels -> the outputs of a frozen stem (features), computed once per picture and cached.

ONNX Runtime computes them, from the same graph that becomes the first part of the served model. On a CPU it is several
times faster than torch, and training sees the exact values that serving will.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.dataset.arrays import Ids, Rows, Update, computed
from stages.inference.runtime import session
from stages.training import augmentations
from stages.training.backbones import weights_hash
from stages.training.export import FEATURES, PIXELS, export
from stages.training.stem import FrozenStem
from stages.workspace import cache

RULE = 1
"""Part of the cache keys. Increase it when a `FrozenStem` gives other values for the same network."""
BATCH = 16


def graph(stem: FrozenStem, shape: tuple[int, ...]) -> Path:
    """The stem as a cached ONNX file, from pictures [n, *shape] to features."""
    constants = (stem.normalise.mean.flatten().tolist(), stem.normalise.std.flatten().tolist())
    # Networks with equal weights may differ in padding or activation functions, which only their text shows.
    name = cache.key(weights_hash(stem), repr(stem), constants, shape, RULE)
    return cache.once("graphs", f"{name}.onnx", lambda aside: export(stem, aside, shape, (PIXELS, FEATURES)))


def extracted(pictures: Rows, stem: FrozenStem, threads: int, copy: int | None = None) -> Rows:
    """The features of pictures, from the cache or computed.

    Args:
        pictures: uint8 rows [size, size, 3].
        stem: the frozen part of the network.
        threads: CPU threads.
        copy: number of an augmented copy, whose features are wanted instead of the picture's own.

    Returns:
        float32 rows: [values] of a `PooledStem`, a feature map of a `CutStem`.
    """
    file = graph(stem, pictures.shape)
    run = session(file, threads)

    def write(place: int, update: Update, aside: Path) -> None:
        pixels = pictures.arrays[place]
        features = []
        for start in range(0, len(pixels), BATCH):
            batch = np.array(pixels[start : start + BATCH])
            if copy is not None:
                batch = augmentations.augment(batch, copy, start)
            features.append(run.run(None, {PIXELS: batch})[0])
            update(len(batch))
        with aside.open("wb") as out:
            np.save(out, np.concatenate(features))

    kind, rules = ("features", ()) if copy is None else (f"augmented-{copy}", (augmentations.RULE,))
    return computed(kind, [cache.key(file.stem, name, *rules) for name in pictures.names], pictures.ids, write)


class Streamed:
    """A graph's outputs for pictures, computed each time they are taken. It can replace `Rows`."""

    def __init__(self, graph: Path, pictures: Rows, threads: int) -> None:
        self._session = session(graph, threads)
        self._pictures = pictures

    def take(self, ids: Ids) -> NDArray[np.float32]:
        """As `Rows.take`: [len(ids), *shape]."""
        batches = (self._pictures.take(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH))
        return np.concatenate([self._session.run(None, {PIXELS: batch})[0] for batch in batches])

    def each(self, ids: Ids) -> list[NDArray[np.float32]]:
        """As `Rows.each`."""
        return list(self.take(ids))
