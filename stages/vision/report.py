"""What is said of a model: one offline page with its numbers, curves and mistakes, and its model card."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
from PIL import Image

from stages.vision import shards
from stages.vision.evaluation import Mistake, Predictions
from stages.vision.images import pixels
from stages.vision.sidecar import Sidecar, decided

TEMPLATES = Path(__file__).with_name("templates")
NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "false_alarms": "False alarms",
    "calibration_error": "Calibration error",
}
"""Metric -> how people call it, in the order of the tables."""
THUMBNAIL = 224
SHOWN_TAGS = 8


@dataclass(frozen=True)
class Shown:
    """A mistake with its picture, and whom it is owed to."""

    mistake: Mistake
    image_id: int
    picture: str
    """As a data: address."""
    artist: str
    url: str
    tags: tuple[str, ...]


def shown(mistakes: list[Mistake], predictions: Predictions, folder: Path, background: int) -> list[Shown]:
    """Mistakes with small pictures, from the bytes in a folder of shards."""
    rows = {mistake.place: predictions.table.slice(mistake.place, 1).to_pylist()[0] for mistake in mistakes}
    wanted = {row["image_id"] for row in rows.values()}
    pictures = {image_id: _thumbnail(data, background) for image_id, data in shards.pictures(folder, wanted)}
    return [
        Shown(
            mistake,
            row["image_id"],
            pictures[row["image_id"]],
            row["artist"] or "unknown",
            row["url"],
            tuple(row["tags"][:SHOWN_TAGS]),
        )
        for mistake in mistakes
        for row in [rows[mistake.place]]
    ]


def _thumbnail(data: bytes, background: int) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels(data, THUMBNAIL, background)).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def page(
    metrics: dict[str, Any],
    confidence: float,
    sidecar: Sidecar,
    predictions: Predictions,
    plots: list[str],
    mistakes: list[Shown],
) -> str:
    """`report.html`: one file, which fetches nothing. `plots` are SVG images of our own."""
    return _rendered(
        "report.html.j2", metrics, confidence, sidecar, predictions, plots=plots, mistakes=mistakes, escape=True
    )


def card(metrics: dict[str, Any], confidence: float, sidecar: Sidecar, predictions: Predictions) -> str:
    """The model card, in Markdown."""
    return _rendered("model_card.md.j2", metrics, confidence, sidecar, predictions, escape=False)


def _rendered(
    template: str,
    metrics: dict[str, Any],
    confidence: float,
    sidecar: Sidecar,
    predictions: Predictions,
    *,
    escape: bool,
    **others: Any,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,  # noqa: S701 (on for the page; Markdown is no HTML)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    ruled = decided(sidecar.kind, sidecar.labels)
    return environment.get_template(template).render(
        metrics=metrics,
        each={label: metrics["labels"][label] for label in ruled} if "labels" in metrics else {ruled[0]: metrics},
        names=NAMES,
        confidence=confidence,
        sidecar=sidecar,
        ruled=ruled,
        hosts=_hosts(predictions),
        counts=Counter(label for each in predictions.actual(sidecar) for label in each.split("+")),
        **others,
    )


def _hosts(predictions: Predictions) -> list[str]:
    """The hosts that the pictures came from."""
    return sorted({urlsplit(url).hostname or "" for url in predictions.table["url"].to_pylist()})
