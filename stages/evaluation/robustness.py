"""What remains of a model's recall when its pictures are repacked, scaled, cropped, framed or drawn over."""

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
from tqdm import tqdm

from stages.evaluation.predictions import Predictions, batches
from stages.inference.decoding import UNCAPPED, open_checked
from stages.inference.predictor import BATCH, Predictor
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import shards

SIDE = 1024
"""Pictures are first scaled to at most this long side, px: what boards show."""
COLUMNS = ("change", "label", "pictures", "recall", "drop", "false_alarms")


@dataclass(frozen=True)
class Robustness:
    """One label under one change of the pictures."""

    change: str
    label: str
    pictures: int
    recall: float
    """At the model's threshold."""
    drop: float
    """Of recall against the unchanged pictures."""
    false_alarms: float


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=30)
    return out.getvalue()


def _half(image: Image.Image) -> bytes:
    return _png(image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS))


def _crop(image: Image.Image) -> bytes:
    """The middle 80 % of each side."""
    return _png(ImageOps.crop(image, (image.width // 10, image.height // 10, image.width // 10, image.height // 10)))


def _screenshot(image: Image.Image) -> bytes:
    """As on a dark phone: bars above and below, a line of controls."""
    bar = max(8, image.height // 4)
    framed = ImageOps.expand(image, (image.width // 20, bar, image.width // 20, bar), (24, 25, 28))
    draw = ImageDraw.Draw(framed)
    for place in range(4):
        left = framed.width * (place + 1) // 5
        draw.ellipse((left, framed.height - bar // 2, left + bar // 4, framed.height - bar // 4), fill=(220, 220, 225))
    return _png(framed)


def _text(image: Image.Image) -> bytes:
    """A line of small text over it, white in black."""
    drawn = image.copy()
    font = ImageFont.load_default(size=max(10, image.height / 14))
    place = (image.width // 2, image.height * 3 // 4)
    ImageDraw.Draw(drawn).text(
        place, "when you see it", (255, 255, 255), font=font, anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0)
    )
    return _png(drawn)


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "unchanged": _png,
    "jpeg 30": _jpeg,
    "half size": _half,
    "crop": _crop,
    "screenshot": _screenshot,
    "grey": lambda image: _png(image.convert("L")),
    "mirrored": lambda image: _png(ImageOps.mirror(image)),
    "text": _text,
}


def tried(predictions: Predictions, predictor: Predictor, folder: Path, count: int, threads: int) -> list[Robustness]:
    """Judge up to `count` pictures of each side of every label anew, under each change."""
    sidecar = predictor.sidecar
    chosen = sample(predictions, sidecar, count)
    ids = predictions.table["image_id"].to_numpy()[chosen]
    scores = {change: np.empty((len(ids), len(sidecar.labels)), np.float32) for change in CHANGES}
    place = 0
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(ids), desc="robustness", unit="picture", disable=None) as bar,
    ):
        for batch in batches(shards.pictures(folder, set(ids.tolist())), BATCH):
            changed = pool.map(partial(_changed, sidecar.background), (data for _, data in batch))
            for change, encoded in zip(CHANGES, zip(*changed, strict=True), strict=True):
                rows = [list(each.scores.values()) for each in predictor.judge(encoded)]
                scores[change][place : place + len(rows)] = rows
            place += len(batch)
            bar.update(len(batch))
    return list(_told(scores, predictions.truth[chosen], sidecar))


def sample(predictions: Predictions, sidecar: Sidecar, count: int) -> NDArray[np.int64]:
    """Positions of up to `count` pictures of each label and as many others, evenly spread, ascending."""
    chosen: set[int] = set()
    for place, _ in enumerate(decided(sidecar.kind, sidecar.labels)):
        for side in (predictions.truth[:, place], ~predictions.truth[:, place]):
            found = np.flatnonzero(side)
            chosen |= set(found[np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)].tolist())
    return np.array(sorted(chosen))


def _changed(background: int, data: bytes) -> list[bytes]:
    """One picture under every change, in the order of `CHANGES`."""
    opened = open_checked(data, UNCAPPED)
    opened.draft("RGB", (SIDE, SIDE))
    image: Image.Image = ImageOps.exif_transpose(opened)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((SIDE, SIDE))
    if image.mode == "RGBA":  # every change sees the same picture, on the grey that the model would lay under it
        under = Image.new("RGB", image.size, (background,) * 3)
        under.paste(image, mask=image.getchannel("A"))
        image = under
    return [change(image) for change in CHANGES.values()]


def _told(scores: dict[str, NDArray[np.float32]], truth: NDArray[np.bool_], sidecar: Sidecar) -> Iterator[Robustness]:
    for place, label in enumerate(decided(sidecar.kind, sidecar.labels)):
        given = {change: rows[:, place] >= sidecar.thresholds[label] for change, rows in scores.items()}
        base = float(given["unchanged"][truth[:, place]].mean())
        for change, flags in given.items():
            recall = float(flags[truth[:, place]].mean())
            alarms = float(flags[~truth[:, place]].mean())
            yield Robustness(change, label, len(truth), round(recall, 4), round(base - recall, 4), round(alarms, 4))


def drops(changes: list[Robustness]) -> dict[str, float]:
    """For the metrics: each change's drop of recall, averaged over labels."""
    names = [name for name in CHANGES if name != "unchanged"]
    mine = {name: [each.drop for each in changes if each.change == name] for name in names}
    return {name.replace(" ", "_"): round(sum(values) / len(values), 4) for name, values in mine.items()}
