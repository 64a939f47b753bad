"""The report's pictures: mistakes, some that were right, and likely label errors, each picture once."""

from __future__ import annotations

import base64
import io
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from stages.dataset.targets import PROVENANCE
from stages.evaluation import saliency
from stages.evaluation.label_issues import Issue
from stages.evaluation.predictions import Mistake, Predictions, right_examples, worst_mistakes
from stages.inference.decoding import UNCAPPED, Pixels, pixels
from stages.inference.predictor import Predictor
from stages.workspace import shards
from stages.workspace.progress import track

MAX_TAGS = 8
"""Tags shown under a picture."""
LOOPBACK = ("localhost", "localhost.localdomain")


@dataclass(frozen=True)
class GalleryPicture:
    """A picture with its captions and credits."""

    label: str
    score: float
    caption: str
    """What the model made of it: `missed`, `false alarm`, or what its label says."""
    right: bool
    image_id: int
    picture: str
    """A data: URL."""
    overlay: str
    """A data: URL of the saliency overlay; "" for none."""
    artist: str
    link: str
    """Its page's address; "" if a browser could not open it."""
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Galleries:
    """The three galleries. A picture is in one of them, once."""

    mistakes: list[GalleryPicture]
    right: list[GalleryPicture]
    issues: list[GalleryPicture]


@dataclass(frozen=True)
class _Entry:
    row: int
    label: str
    score: float
    caption: str
    right: bool


def build(
    predictions: Predictions, issues: list[Issue], folder: Path, predictor: Predictor, count: int, saliency_count: int
) -> Galleries:
    """Choose the pictures, and read them from a folder of shards.

    Args:
        predictions: of the split.
        issues: its likely label errors, the likeliest first: their pictures are neither mistakes nor right.
        folder: of shards.
        predictor: the model.
        count: mistakes, and likely label errors, at most; and a third as many that were right.
        saliency_count: mistakes, then label errors, that get a saliency overlay.
    """
    doubtful = {issue.row for issue in issues}
    mistakes = _once(map(_mistake, worst_mistakes(predictions, predictor.sidecar, count, without=doubtful)))
    right = _once(
        _Entry(row, label, float(score), "found" if positive else "left alone", right=True)
        for row, label, score, positive in right_examples(predictions, predictor.sidecar, count // 3, without=doubtful)
    )
    wrong_labels = _once(map(_issue, issues))[:count]
    squares = _squares({entry.row for entry in (*mistakes, *right, *wrong_labels)}, predictions, folder, predictor)
    columns = {label: column for column, label in enumerate(predictor.sidecar.labels)}
    explained = (*mistakes, *wrong_labels)[:saliency_count]
    overlays = {
        entry.row: saliency.overlay(
            squares[entry.row], saliency.occlusion(squares[entry.row], predictor, columns[entry.label])
        )
        for entry in track(explained, "saliency", len(explained))
    }
    mistaken, rightly, doubted = (
        [_picture(entry, predictions, squares, overlays) for entry in part] for part in (mistakes, right, wrong_labels)
    )
    return Galleries(mistaken, rightly, doubted)


def _mistake(mistake: Mistake) -> _Entry:
    return _Entry(mistake.row, mistake.label, mistake.score, "missed" if mistake.missed else "false alarm", right=False)


def _issue(issue: Issue) -> _Entry:
    caption = f"labelled {issue.label}" if issue.given else f"not labelled {issue.label}"
    return _Entry(issue.row, issue.label, issue.score, caption, right=False)


def _once(entries: Iterable[_Entry]) -> list[_Entry]:
    """The first entry of each picture, which a policy of several labels may name several times."""
    first: dict[int, _Entry] = {}
    for entry in entries:
        first.setdefault(entry.row, entry)
    return list(first.values())


def _picture(
    entry: _Entry, predictions: Predictions, squares: dict[int, Pixels], overlays: dict[int, Pixels]
) -> GalleryPicture:
    image = predictions.table.slice(entry.row, 1).to_pylist()[0]
    overlay = overlays.get(entry.row)
    return GalleryPicture(
        entry.label,
        entry.score,
        entry.caption,
        entry.right,
        image["image_id"],
        _data_url(squares[entry.row]),
        "" if overlay is None else _data_url(overlay),
        image["artist"] or "unknown",
        image["url"] if opens(image["url"]) else "",
        tuple(tag for tag in image["tags"] if not tag.startswith(PROVENANCE))[:MAX_TAGS],
    )


def opens(url: str) -> bool:
    """Whether a browser elsewhere, at another time, may open the address: on the web, and not on a machine's loopback.

    The sample board and a folder's pictures are served on loopback, and only while they are downloaded.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return host not in LOOPBACK and not host.endswith(".localhost")


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
