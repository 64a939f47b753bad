"""How recall and false positive rate hold up when pictures are recompressed, scaled, cropped, framed or drawn over.

The idea is that of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (2019), with what happens to pictures on their way to a chat.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from stages.evaluation.predictions import Predictions, balanced_sample, batches
from stages.inference.decoding import UNCAPPED, Pixels, first_frame, letterbox
from stages.inference.predictor import BATCH, Predictor
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import shards
from stages.workspace.progress import Progress

MAX_SIDE = 1024
"""Long side, in px, that larger pictures are scaled down to first; boards show them at about this size."""
COLUMNS = ("corruption", "label", "pictures", "recall", "drop", "false_positive_rate")


@dataclass(frozen=True)
class CorruptionResult:
    """One label's metrics at the model's threshold, under one corruption."""

    corruption: str
    label: str
    pictures: int
    recall: float
    drop: float
    """Recall without a corruption - recall."""
    false_positive_rate: float


def _jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return first_frame(file.getvalue(), MAX_SIDE)


def _half(image: Image.Image) -> Image.Image:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)


def _crop(image: Image.Image) -> Image.Image:
    """Keep the middle 80 % of each side."""
    return ImageOps.crop(image, (image.width // 10, image.height // 10, image.width // 10, image.height // 10))


def _screenshot(image: Image.Image) -> Image.Image:
    """Frame the picture as a phone in dark mode does: bars above and below, a row of round buttons."""
    bar = max(8, image.height // 4)
    framed = ImageOps.expand(image, (image.width // 20, bar, image.width // 20, bar), (24, 25, 28))
    draw = ImageDraw.Draw(framed)
    for button in range(4):
        left = framed.width * (button + 1) // 5
        draw.ellipse((left, framed.height - bar // 2, left + bar // 4, framed.height - bar // 4), fill=(220, 220, 225))
    return framed


def _text(image: Image.Image) -> Image.Image:
    """Draw a line of small white text with a black outline over the picture."""
    captioned = image.copy()
    font = ImageFont.load_default(size=max(10, image.height / 14))
    position = (image.width // 2, image.height * 3 // 4)
    ImageDraw.Draw(captioned).text(
        position, "when you see it", (255, 255, 255), font=font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0)
    )
    return captioned


BASELINE = "none"
CORRUPTIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    BASELINE: lambda image: image,
    "jpeg 30": _jpeg,
    "half size": _half,
    "crop": _crop,
    "screenshot": _screenshot,
    "grey": lambda image: image.convert("L"),
    "mirrored": ImageOps.mirror,
    "text": _text,
}


def measure(
    predictions: Predictions, predictor: Predictor, folder: Path, count: int, threads: int
) -> list[CorruptionResult]:
    """Judge a sample of the split's pictures under each corruption.

    Args:
        predictions: of the split.
        predictor: the model.
        folder: of shards, which hold the pictures' bytes.
        count: of each label's positives, and of its negatives, at most.
        threads: that corrupt pictures.
    """
    sidecar = predictor.sidecar
    sample = balanced_sample(predictions, sidecar, count)
    ids = predictions.table["image_id"].to_numpy()[sample]
    scores = {name: np.empty((len(ids), len(sidecar.labels)), np.float32) for name in CORRUPTIONS}
    start = 0
    with (
        ThreadPoolExecutor(threads) as pool,
        Progress("corruptions", len(ids)) as progress,
    ):
        for batch in batches(shards.pictures(folder, set(ids.tolist())), BATCH):
            corrupted = pool.map(partial(_corrupted, sidecar.size, sidecar.background), (data for _, data in batch))
            # One tuple of versions a picture -> one tuple of pictures a corruption, which the model takes as a batch.
            for name, pictures in zip(CORRUPTIONS, zip(*corrupted, strict=True), strict=True):
                scores[name][start : start + len(batch)] = predictor.score(np.stack(pictures))
            start += len(batch)
            progress.update(len(batch))
    return list(_results(scores, predictions.truth[sample], sidecar))


def _corrupted(size: int, background: int, data: bytes) -> list[Pixels]:
    """One picture under each of `CORRUPTIONS`, uint8 [size, size, 3] each."""
    image = first_frame(data, MAX_SIDE, UNCAPPED, background)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    if image.mode == "RGBA":  # JPEG has no transparency, so all corruptions start on the model's own background
        opaque = Image.new("RGB", image.size, (background,) * 3)
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    # Not as files, but for JPEG: encoding and decoding a lossless one would change nothing.
    return [letterbox(corrupt(image), size, background) for corrupt in CORRUPTIONS.values()]


def _results(
    scores: dict[str, NDArray[np.float32]], truth: NDArray[np.bool_], sidecar: Sidecar
) -> Iterator[CorruptionResult]:
    for column, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        predicted = {name: rows[:, column] >= sidecar.thresholds[label] for name, rows in scores.items()}
        positives = truth[:, column]  # not empty: `read_split` checks it
        baseline = float(predicted[BASELINE][positives].mean())
        for name, flags in predicted.items():
            recall, false_positive_rate = float(flags[positives].mean()), float(flags[~positives].mean())
            yield CorruptionResult(
                name, label, len(truth), round(recall, 4), round(baseline - recall, 4), round(false_positive_rate, 4)
            )


def recall_drops(results: list[CorruptionResult]) -> dict[str, float]:
    """Corruption -> drop of recall, averaged over labels; for `metrics.json`."""
    names = [name for name in CORRUPTIONS if name != BASELINE]
    drops = {name: [result.drop for result in results if result.corruption == name] for name in names}
    return {name.replace(" ", "_"): round(sum(values) / len(values), 4) for name, values in drops.items()}
