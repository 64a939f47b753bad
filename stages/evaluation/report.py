"""Render the test report, a single offline HTML page, and the model card, in Markdown."""

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
from stages.evaluation.corruptions import CorruptionResult
from stages.evaluation.label_issues import Issue
from stages.evaluation.predictions import Mistake, Predictions
from stages.evaluation.slices import Slice
from stages.inference.decoding import UNCAPPED, Pixels, pixels
from stages.inference.predictor import Predictor
from stages.inference.sidecar import Sidecar, decided
from stages.workspace import shards
from stages.workspace.progress import track

TEMPLATES = Path(__file__).with_name("templates")
METRIC_NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "false_positive_rate": "False positive rate",
    "calibration_error": "Calibration error",
}
"""Metric -> its name in tables, in their order."""
MAX_TAGS = 8
"""Tags shown under a picture."""


@dataclass(frozen=True)
class GalleryPicture:
    """A picture with its caption and credits."""

    caption: str
    label: str
    score: float
    image_id: int
    picture: str
    """A data: URL."""
    overlay: str
    """A data: URL of the saliency overlay; "" for none."""
    artist: str
    url: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class ReportData:
    """What the report and the model card are rendered from."""

    metrics: dict[str, Any]
    confidence: float
    sidecar: Sidecar
    predictions: Predictions
    plots: list[str]
    """SVG elements, inserted unescaped."""
    slices: list[Slice]
    corruptions: list[CorruptionResult]
    mistakes: list[GalleryPicture]
    issues: list[GalleryPicture]
    issue_count: int
    """All likely label errors; `issues` are the likeliest."""


def mistake_gallery(
    mistakes: list[Mistake], predictions: Predictions, folder: Path, predictor: Predictor, saliency_count: int
) -> list[GalleryPicture]:
    """Mistakes with pictures from a folder of shards; the first `saliency_count` get a saliency overlay."""
    columns = {label: column for column, label in enumerate(predictor.sidecar.labels)}
    squares = _squares({mistake.row for mistake in mistakes}, predictions, folder, predictor)
    gallery = []
    for rank, mistake in enumerate(track(mistakes, "saliency", len(mistakes))):
        square = squares[mistake.row]
        overlay = None
        if rank < saliency_count:
            overlay = saliency.overlay(square, saliency.occlusion(square, predictor, columns[mistake.label]))
        caption = "false negative" if mistake.missed else "false positive"
        gallery.append(_gallery_picture(mistake, caption, predictions, square, overlay))
    return gallery


def issue_gallery(
    issues: list[Issue], predictions: Predictions, folder: Path, predictor: Predictor
) -> list[GalleryPicture]:
    """Likely label errors with pictures from a folder of shards."""
    squares = _squares({issue.row for issue in issues}, predictions, folder, predictor)
    return [
        _gallery_picture(
            issue,
            f"labelled {issue.label}" if issue.given else f"not labelled {issue.label}",
            predictions,
            squares[issue.row],
        )
        for issue in issues
    ]


def _gallery_picture(
    entry: Mistake | Issue, caption: str, predictions: Predictions, square: Pixels, overlay: Pixels | None = None
) -> GalleryPicture:
    image = predictions.table.slice(entry.row, 1).to_pylist()[0]
    return GalleryPicture(
        caption,
        entry.label,
        entry.score,
        image["image_id"],
        _data_url(square),
        "" if overlay is None else _data_url(overlay),
        image["artist"] or "unknown",
        image["url"],
        tuple(image["tags"][:MAX_TAGS]),
    )


def _squares(rows: set[int], predictions: Predictions, folder: Path, predictor: Predictor) -> dict[int, Pixels]:
    """Row -> the picture, decoded as the model sees it."""
    # The pictures of a page are in few shards, but in no order, so one pass over the shards fetches all.
    row_of = {predictions.table["image_id"][row].as_py(): row for row in rows}
    sidecar = predictor.sidecar
    return {
        row_of[image_id]: pixels(data, sidecar.size, sidecar.background, UNCAPPED)
        for image_id, data in shards.pictures(folder, set(row_of))
    }


def _data_url(square: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(square).save(file, "JPEG", quality=80)  # some 5 kB each, so that the page stays small
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def render_report(data: ReportData) -> str:
    """The text of `report.html`, one file that loads nothing else."""
    return _render("report.html.j2", data, escape=True)


def render_model_card(data: ReportData) -> str:
    """The text of `models/README.md`."""
    return _render("model_card.md.j2", data, escape=False)


def _render(template: str, data: ReportData, *, escape: bool) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,  # noqa: S701 (Markdown is not HTML)
        undefined=jinja2.StrictUndefined,  # a typo in a template is an error, not an empty string
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    metrics, sidecar, predictions = data.metrics, data.sidecar, data.predictions
    labels = decided(sidecar.kind, sidecar.labels)
    return environment.get_template(template).render(
        **vars(data),
        labels=labels,
        label_metrics=metrics.get("labels", {labels[0]: metrics}),
        metric_names=METRIC_NAMES,
        heads=sidecar.params["model"].get("heads", 1),
        parity_rows=list(_parity_rows(metrics.get("parity", {}))),
        hosts=sorted({urlsplit(url).hostname or "" for url in predictions.table["url"].to_pylist()}),
        counts=Counter(label for verdict in predictions.true_verdicts(sidecar) for label in verdict.split("+")),
    )


def _parity_rows(parity: dict[str, Any]) -> Iterator[tuple[str, int, str, dict[str, float]]]:
    """Rows of the parity table: a runtime, pictures, the runtime it is compared with ("" for none), and metrics."""
    for name, values in parity.items():
        if name != "pictures":
            yield name, parity["pictures"], "" if name == "torch" else "torch", values
