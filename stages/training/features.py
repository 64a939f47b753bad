"""Pixels -> the outputs of a frozen stem (features), computed once per picture and cached.

ONNX Runtime computes them, from the same graph that becomes the first part of the served model. On a CPU it is several
times faster than torch, and training sees the exact values that serving will.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.dataset.arrays import Ids, Rows, Update, computed
from stages.inference.decoding import Pixels
from stages.inference.runtime import session
from stages.training import augmentations, drawings
from stages.training.backbones import weights_hash
from stages.training.export import FEATURES, PIXELS, export
from stages.training.quantisation import UnquantisableError, quantise
from stages.training.stem import FrozenStem
from stages.workspace import cache

log = logging.getLogger(__name__)

RULE = 1
"""Part of the cache keys. Increase it when a `FrozenStem` gives other values for the same network."""
INT8_RULE = 1
"""Part of the cache keys. Increase it when `quantise` gives another graph for the same one."""
BATCH = 16
MEASURED, COMPARED = 128, 64
"""Pictures on which the ranges of activations are measured, and others on which both graphs are compared."""
LEAST_CORRELATION = 0.9
"""Of a feature's int8 values with its fp32 values, on average over features; below it the stem stays fp32."""


def graph(stem: FrozenStem, shape: tuple[int, ...]) -> Path:
    """The stem as a cached ONNX file, from pictures [n, *shape] to features."""
    constants = (stem.normalise.mean.flatten().tolist(), stem.normalise.std.flatten().tolist())
    # Networks with equal weights may differ in padding or activation functions, which only their text shows.
    name = cache.key(weights_hash(stem), repr(stem), constants, shape, RULE)
    return cache.once("graphs", f"{name}.onnx", lambda aside: export(stem, aside, shape, (PIXELS, FEATURES)))


def int8_graph(fp32: Path, shape: tuple[int, ...], threads: int) -> Path | None:
    """The int8 form of a stem's graph, cached; None if it has no convolutions, or int8 changes the features too much.

    Activations are measured on drawings and not on training pictures. So the graph, and with it all cached features,
    depend on the stem alone: they serve all data sets, splits and folds, and no picture of a test split can have a part
    in them.
    """
    pictures = drawings.draw(MEASURED + COMPARED, shape[0], seed=0)

    def write(aside: Path) -> None:
        quantise(fp32, aside, pictures[:MEASURED])
        others = np.split(pictures[MEASURED:], COMPARED // BATCH)
        correlation = _correlation(*(outputs(file, others, threads) for file in (fp32, aside)))
        if not correlation >= LEAST_CORRELATION:  # also true for NaN
            raise UnquantisableError(f"its features' correlation with fp32 is {correlation:.4f}")

    try:
        return cache.once("graphs", f"{cache.key(fp32.stem, INT8_RULE, drawings.RULE)}.onnx", write)
    except UnquantisableError as error:
        log.info("the frozen stem stays fp32: %s", error)
        return None


def outputs(file: Path, batches: Iterable[Pixels], threads: int) -> NDArray[np.float32]:
    """A graph's outputs for batches of pictures, uint8 [n, size, size, 3] each: [all n, *shape]."""
    run = session(file, threads)
    return np.concatenate([run.run(None, {PIXELS: batch})[0] for batch in batches])


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean correlation between the columns of two arrays [n, ...]; constant columns of the first do not count."""
    one, other = (values.reshape(len(values), -1) for values in (one, other))
    varying = one.std(0) > 0
    one, other = (values[:, varying] - values[:, varying].mean(0) for values in (one, other))
    spread = np.sqrt((one**2).sum(0) * (other**2).sum(0))
    return float(np.divide((one * other).sum(0), spread, out=np.zeros_like(spread), where=spread > 0).mean())


def extracted(pictures: Rows, graph: Path, threads: int, copy: int | None = None, wanted: Ids | None = None) -> Rows:
    """The features of pictures, from the cache or computed.

    Args:
        pictures: uint8 rows [size, size, 3].
        graph: the frozen part of the network, a file of `graph` or `int8_graph`.
        threads: CPU threads.
        copy: number of an augmented copy, whose features are wanted instead of the picture's own.
        wanted: ids of the pictures whose rows are needed; other rows may be NaN. None: all.

    Returns:
        float32 rows: [values] of a `PooledStem`, a feature map of a `CutStem`.
    """
    extraction = _Extraction(pictures, graph, threads, copy, wanted)
    kind = "features" if copy is None else f"augmented-{copy}"
    return computed(kind, extraction.names, pictures.ids, extraction.write, extraction.suffices)


class _Extraction:
    """Computes the rows of `extracted` that no earlier run has computed."""

    def __init__(self, pictures: Rows, graph: Path, threads: int, copy: int | None, wanted: Ids | None) -> None:
        self._pictures = pictures
        # A session of one thread, run by several: the values do not depend on their number, and while one thread
        # augments pictures, another one runs the graph.
        self._session = session(graph, 1)
        self._threads = threads
        self._random = threading.Lock()
        self._copy = copy
        self._needed = [np.ones(len(ids), bool) if wanted is None else np.isin(ids, wanted) for ids in pictures.ids]
        rules = () if copy is None else (augmentations.RULE,)
        self.names = [cache.key(graph.stem, name, *rules) for name in pictures.names]

    def suffices(self, place: int, file: Path) -> bool:
        """Whether a shard's cached file has all rows that are needed."""
        return len(self._missing(place, np.load(file, mmap_mode="r"))) == 0

    def write(self, place: int, update: Update, aside: Path) -> None:
        """Write a shard's file: the rows that are needed, and those of the present file."""
        present = aside.with_name(f"{self.names[place]}.npy")
        if present.exists():
            rows = np.load(present)
            positions = self._missing(place, rows)
            rows[positions] = self._compute(place, positions, update)
        else:
            needed = self._needed[place]
            positions = np.flatnonzero(needed) if needed.any() else np.array([0])  # one row tells the shape
            values = self._compute(place, positions, update)
            rows = np.full((len(needed), *values.shape[1:]), np.nan, np.float32)
            rows[positions] = values
        with aside.open("wb") as out:
            np.save(out, rows)

    def _missing(self, place: int, rows: NDArray[np.float32]) -> NDArray[np.int64]:
        """Positions of the rows to compute: needed, and NaN so far."""
        return np.flatnonzero(self._needed[place] & np.isnan(rows.reshape(len(rows), -1)[:, 0]))

    def _compute(self, place: int, positions: NDArray[np.int64], update: Update) -> NDArray[np.float32]:
        def features(batch: NDArray[np.int64]) -> NDArray[np.float32]:
            pixels = self._pictures.arrays[place][batch]
            if self._copy is not None:
                with self._random:  # torch's generator is one for all threads
                    pixels = augmentations.augment(pixels, self._copy, batch.tolist())
            values: NDArray[np.float32] = self._session.run(None, {PIXELS: pixels})[0]
            return values

        rows = []
        batches = np.split(positions, range(BATCH, len(positions), BATCH))
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for values in pool.map(features, batches):
                    rows.append(values)
                    update(len(values))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # Ctrl-C would wait for all batches
                raise
        return np.concatenate(rows)
