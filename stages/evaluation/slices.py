"""How a model does on parts of the test split: by tag, by how much an artist drew, by size and format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.evaluation.predictions import Predictions
from stages.inference.decoding import UNCAPPED, open_checked
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import shards

LEAST = 10
"""Pictures that a slice needs to be told of."""
TAGS = 25
"""Most frequent tags told of."""
SIDES = (200, 400, 800, 1600)
"""Upper bounds of the slices by long side, px."""
DRAWN = (1, 3, 10, 30)
"""Upper bounds of the slices by how many pictures of the split are of the same artist."""
COLUMNS = ("kind", "value", "label", "pictures", "positives", "recall", "false_alarms")


@dataclass(frozen=True)
class Slice:
    """One label on one part of the split."""

    kind: str
    value: str
    label: str
    pictures: int
    positives: int
    recall: float | None
    """Of the label's pictures; None if there is none."""
    false_alarms: float | None
    """Share of the others that are given the label; None if there is none."""


def sliced(predictions: Predictions, sidecar: Sidecar, folder: Path) -> list[Slice]:
    """Every slice of at least `LEAST` pictures, for each label that has a threshold."""
    found = []
    for kind, value, chosen in _parts(predictions, folder):
        if (count := int(chosen.sum())) < LEAST:
            continue
        for place, label in enumerate(decided(sidecar.kind, sidecar.labels)):
            given = predictions.scores[:, place] >= sidecar.thresholds[label]
            truth = predictions.truth[:, place]
            found.append(
                Slice(
                    kind,
                    value,
                    label,
                    count,
                    int((chosen & truth).sum()),
                    _share(given, chosen & truth),
                    _share(given, chosen & ~truth),
                )
            )
    return found


def _share(given: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return round(float(given[among].mean()), 4) if among.any() else None


def _parts(predictions: Predictions, folder: Path) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Kind, value, and which pictures [n] are in it."""
    table = predictions.table
    yield "all", "all", np.ones(len(table), bool)
    tags = [set(each) for each in table["tags"].to_pylist()]
    counts = Counter(tag for each in tags for tag in each if not tag.startswith("artist:"))
    for tag, _ in sorted(counts.most_common(TAGS), key=lambda each: (-each[1], each[0])):
        yield "tag", tag, np.array([tag in each for each in tags])
    artists = table["artist"].to_pylist()
    drawn = Counter(artists)
    yield from _ranges("pictures of the artist", np.array([drawn[each] for each in artists]), DRAWN)
    sides = np.maximum(table["width"].to_numpy(), table["height"].to_numpy())
    yield from _ranges("long side", sides, SIDES)
    formats = np.array(table["format"].to_pylist())
    for name in sorted(set(formats.tolist())):
        yield "format", name, formats == name
    moving = animated(folder, table["image_id"].to_pylist())
    for value, wanted in (("yes", True), ("no", False)):
        yield "animated", value, moving == wanted


def _ranges(
    kind: str, values: NDArray[np.int64], ends: tuple[int, ...]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    low = 0
    for high in ends:
        yield kind, f"{low + 1} to {high}" if high > low + 1 else f"{high}", (values > low) & (values <= high)
        low = high
    yield kind, f"over {low}", values > low


def animated(folder: Path, ids: list[int]) -> NDArray[np.bool_]:
    """Which of these images, ascending, have several frames: [n]."""
    moving = {
        image_id: bool(getattr(open_checked(data, UNCAPPED), "is_animated", False))
        for image_id, data in shards.pictures(folder, set(ids))
    }
    return np.array([moving[image_id] for image_id in ids], bool)
