"""What is said of a model: one offline page with its numbers, curves and mistakes, and its model card."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
from PIL import Image

from stages.evaluation import saliency
from stages.evaluation.label_issues import Issue
from stages.evaluation.predictions import Mistake, Predictions
from stages.evaluation.robustness import Robustness
from stages.evaluation.slices import Slice
from stages.inference.decoding import UNCAPPED, Pixels, pixels
from stages.inference.predictor import Predictor
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import shards

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
SHOWN_TAGS = 8


@dataclass(frozen=True)
class Shown:
    """A picture with what is said of it, and whom it is owed to."""

    said: str
    label: str
    score: float
    image_id: int
    picture: str
    """As a data: address."""
    overlay: str
    """The same, under what the score hangs on; "" for none."""
    artist: str
    url: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Described:
    """All that the page and the card tell of."""

    metrics: dict[str, Any]
    confidence: float
    sidecar: Sidecar
    predictions: Predictions
    plots: list[str]
    """SVG images of our own."""
    slices: list[Slice]
    changes: list[Robustness]
    mistakes: list[Shown]
    issues: list[Shown]
    suspects: int
    """Pictures whose labels are likely wrong, of which `issues` are the likeliest."""


def mistakes(
    found: list[Mistake], predictions: Predictions, folder: Path, predictor: Predictor, explained: int
) -> list[Shown]:
    """Mistakes with small pictures, from the bytes in a folder of shards; the first few with an overlay."""
    columns = {label: place for place, label in enumerate(predictor.sidecar.labels)}
    squares = _squares({each.place for each in found}, predictions, folder, predictor)
    return [
        _shown(
            each.place,
            "missed" if each.missed else "false alarm",
            each.label,
            each.score,
            predictions,
            squares[each.place],
            saliency.overlaid(
                squares[each.place], saliency.attributed(squares[each.place], predictor, columns[each.label])
            )
            if place < explained
            else None,
        )
        for place, each in enumerate(found)
    ]


def issues(found: list[Issue], predictions: Predictions, folder: Path, predictor: Predictor) -> list[Shown]:
    """Pictures whose labels are likely wrong."""
    squares = _squares({each.place for each in found}, predictions, folder, predictor)
    return [
        _shown(
            each.place,
            f"labelled {each.label}" if each.given else f"not labelled {each.label}",
            each.label,
            each.score,
            predictions,
            squares[each.place],
        )
        for each in found
    ]


def _shown(
    place: int,
    said: str,
    label: str,
    score: float,
    predictions: Predictions,
    square: Pixels,
    overlay: Pixels | None = None,
) -> Shown:
    row = predictions.table.slice(place, 1).to_pylist()[0]
    return Shown(
        said,
        label,
        score,
        row["image_id"],
        _address(square),
        "" if overlay is None else _address(overlay),
        row["artist"] or "unknown",
        row["url"],
        tuple(row["tags"][:SHOWN_TAGS]),
    )


def _squares(places: set[int], predictions: Predictions, folder: Path, predictor: Predictor) -> dict[int, Pixels]:
    """The pictures at these rows as the model sees them, by row."""
    ids = {predictions.table["image_id"][place].as_py(): place for place in places}
    sidecar = predictor.sidecar
    return {
        ids[image_id]: pixels(data, sidecar.size, sidecar.background, UNCAPPED)
        for image_id, data in shards.pictures(folder, set(ids))
    }


def _address(square: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(square).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def page(described: Described) -> str:
    """`report.html`: one file, which fetches nothing."""
    return _rendered("report.html.j2", described, escape=True)


def card(described: Described) -> str:
    """The model card, in Markdown."""
    return _rendered("model_card.md.j2", described, escape=False)


def _rendered(template: str, described: Described, *, escape: bool) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,  # noqa: S701 (on for the page; Markdown is no HTML)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    metrics, sidecar, predictions = described.metrics, described.sidecar, described.predictions
    ruled = decided(sidecar.kind, sidecar.labels)
    return environment.get_template(template).render(
        **vars(described),
        each={label: metrics["labels"][label] for label in ruled} if "labels" in metrics else {ruled[0]: metrics},
        names=NAMES,
        ruled=ruled,
        forms=list(_forms(metrics.get("parity", {}))),
        hosts=_hosts(predictions),
        counts=Counter(label for each in predictions.actual(sidecar) for label in each.split("+")),
    )


def _forms(parity: dict[str, Any]) -> Iterator[tuple[str, int, str, dict[str, float]]]:
    """A row of the table of forms each: the form, pictures, the form it is compared with ("" if none), numbers."""
    for measured in parity.values():
        first, *others = [form for form in measured if form != "pictures"]
        for form in (first, *others):
            yield form, measured["pictures"], "" if form == first else first, measured[form]


def _hosts(predictions: Predictions) -> list[str]:
    """The hosts that the pictures came from."""
    return sorted({urlsplit(url).hostname or "" for url in predictions.table["url"].to_pylist()})
