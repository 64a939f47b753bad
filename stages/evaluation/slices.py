"""Recall and false positive rate on slices of the test split: by tag, origin, artist, size, format and animation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.dataset.targets import ORIGIN, PROVENANCE
from stages.evaluation import intervals
from stages.evaluation.intervals import Groups
from stages.evaluation.predictions import Predictions
from stages.inference.frames import frame_count
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import shards

MIN_PICTURES = 10
"""Smaller slices are left out, and so is a rate over fewer pictures: it would be noise."""
TAGS = 25
"""The most frequent tags, each of which is a slice."""
SIDES = (200, 400, 800, 1600)
"""Upper bounds of the slices by long side, px."""
ARTIST_PICTURES = (1, 3, 10, 30)
"""Upper bounds of the slices by how many pictures of the split are by the same artist."""
COLUMNS = (
    *("kind", "value", "label", "pictures", "positives", "recall", "recall_low", "recall_high"),
    *("false_positive_rate", "false_positive_rate_low", "false_positive_rate_high"),
)


@dataclass(frozen=True)
class Slice:
    """One label's metrics on one slice."""

    kind: str
    value: str
    label: str
    pictures: int
    positives: int
    recall: float | None
    """With its interval; None if the slice has fewer than `MIN_PICTURES` positives."""
    recall_low: float | None
    recall_high: float | None
    false_positive_rate: float | None
    """With its interval; None if the slice has fewer than `MIN_PICTURES` negatives."""
    false_positive_rate_low: float | None
    false_positive_rate_high: float | None


def measure(predictions: Predictions, sidecar: Sidecar, folder: Path, confidence: float) -> list[Slice]:
    """Measure each slice of at least `MIN_PICTURES`, for each label that has a threshold.

    Args:
        predictions: of the split.
        sidecar: of the model, with its thresholds.
        folder: of shards; their bytes tell which pictures are animated.
        confidence: level of the intervals.
    """
    slices = []
    for kind, value, chosen in _slices(predictions, folder):
        if (count := int(chosen.sum())) < MIN_PICTURES:
            continue
        for column, label in enumerate(decided(sidecar.kind, sidecar.labels)):
            predicted = predictions.scores[:, column] >= sidecar.thresholds[label]
            truth = predictions.truth[:, column]
            rates = (
                value
                for among in (chosen & truth, chosen & ~truth)
                for value in _rate(predicted[among], predictions.groups[among], confidence)
            )
            slices.append(Slice(kind, value, label, count, int((chosen & truth).sum()), *rates))
    return slices


def _rate(predicted: NDArray[np.bool_], groups: Groups, confidence: float) -> tuple[float | None, ...]:
    if len(predicted) < MIN_PICTURES:
        return None, None, None
    return tuple(round(value, 4) for value in intervals.rate(predicted, groups, confidence))


def _slices(predictions: Predictions, folder: Path) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Each slice's kind, its value, and which pictures [n] are in it."""
    table = predictions.table
    yield "all", "all", np.ones(len(table), bool)
    tags = [set(names) for names in table["tags"].to_pylist()]
    # Artists have slices of their own, by how much they drew.
    counts = Counter(tag for names in tags for tag in names if not tag.startswith(PROVENANCE))
    # Sorted by name, too, before the cut: `most_common` leaves ties in the order of sets, which differs between runs.
    for tag, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:TAGS]:
        yield "tag", tag, np.array([tag in names for names in tags])
    for origin in sorted({tag for names in tags for tag in names if tag.startswith(ORIGIN)}):
        yield "origin", origin.removeprefix(ORIGIN), np.array([origin in names for names in tags])
    artists = table["artist"].to_pylist()
    pictures = Counter(artists)
    yield from _ranges("pictures of the artist", np.array([pictures[artist] for artist in artists]), ARTIST_PICTURES)
    sides = np.maximum(table["width"].to_numpy(), table["height"].to_numpy())
    yield from _ranges("long side", sides, SIDES)
    formats = np.array(table["format"].to_pylist())
    for name in sorted(set(formats.tolist())):
        yield "format", name, formats == name
    moving = _animated(folder, table["image_id"].to_pylist())
    for value, wanted in (("yes", True), ("no", False)):
        yield "animated", value, moving == wanted


def _ranges(
    kind: str, values: NDArray[np.int64], ends: tuple[int, ...]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Slices of values up to each of `ends`, and one of those above the last."""
    low = 0
    for high in ends:
        yield kind, f"{low + 1} to {high}" if high > low + 1 else f"{high}", (values > low) & (values <= high)
        low = high
    yield kind, f"over {low}", values > low


def _animated(folder: Path, ids: list[int]) -> NDArray[np.bool_]:
    """Which pictures have several frames: [n], in the order of `ids`."""
    moving = {image_id: frame_count(data) > 1 for image_id, data in shards.pictures(folder, set(ids))}
    return np.array([moving[image_id] for image_id in ids], bool)
