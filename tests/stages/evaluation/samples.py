"""Small predictions and shards for the tests of this room."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.config.test import Test
from stages.evaluation import report
from stages.evaluation.gallery import Galleries
from stages.evaluation.predictions import Predictions, measure_predictions
from stages.inference.sidecar import Sidecar
from stages.workspace import paths, shards


def write_shards(folder: Path, pictures: list[bytes]) -> Path:
    columns = {"sha256": "", "width": 64, "height": 64, "format": "png"}
    shards.write(
        folder / shards.name(0),
        ({"image_id": image_id, "bytes": data, **columns} for image_id, data in enumerate(pictures)),
    )
    return folder


def write_split_summary(folder: Path, labels: list[str], pictures: int = 120) -> None:
    """What the split stage says of a fold of three equal parts."""
    part = {"pictures": pictures // 3, "labels": {label: pictures // 3 // len(labels) for label in labels}}
    target = folder / paths.SPLIT_SUMMARY
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps(
            {
                "group_by": "content",
                "folds": 5,
                "fold": 0,
                "pictures": pictures,
                "left_out": {"cross_split_links": 3},
                "splits": {"train": part, "val": part, "test": part},
            }
        )
    )


def predictions(scores: list[float], truth: list[bool], **columns: list[object]) -> Predictions:
    """Of the labels flagged and clean: scores and truth are those of flagged."""
    count = len(scores)
    table = {
        "image_id": list(range(count)),
        "artist": ["ann"] * count,
        "url": [f"http://sample.localhost/{image_id}.png" for image_id in range(count)],
        "tags": [["safe"]] * count,
        "width": [64] * count,
        "height": [64] * count,
        "format": ["png"] * count,
        "group": list(range(count)),
        "created_at": [dt.datetime.fromisoformat("2012-05-01")] * count,
        **columns,
    }
    both = np.stack([scores, 1 - np.array(scores)], 1).astype(np.float32)
    flags = np.stack([truth, ~np.array(truth)], 1)
    return Predictions(pa.table(table), flags, both, ["flagged" if score >= 0.6 else "clean" for score in scores])


def three_classes() -> report.ReportData:
    """What a report of a policy with three classes is rendered from; a name is hostile."""
    labels = ("nude", "gore & <b>", "fine")
    classes = np.arange(30) % 3
    truth = classes[:, None] == np.arange(3)
    scores = np.where(truth, 0.8, 0.1).astype(np.float32)
    swapped = [1, 4]  # two of gore look nude, and two of nude like gore
    scores[swapped] = scores[swapped][:, [1, 0, 2]]
    scores[[0, 3]] = scores[[0, 3]][:, [1, 0, 2]]
    names = [labels[column] for column in scores.argmax(1)]
    split_predictions = Predictions(predictions([0.5] * 30, [True] * 30).table, truth, scores, names)
    sidecar = Sidecar(
        name="three",
        kind="multiclass",
        labels=labels,
        size=32,
        background=128,
        thresholds={"nude": 0.5, "gore & <b>": 0.25},
        calibration={"temperature": 1.0, "bias": [0.0], "threshold_objective": "f1", "target_rate": None},
        policy={"name": "three", "kind": "multiclass", "labels": list(labels), "rules": {}},
        data={},
        code="abc",
        params={"model": {"name": "mini_xception"}},
        metrics={},
    )
    params = Test(bootstrap=100)
    metrics = measure_predictions(split_predictions, sidecar, params)
    part = {"pictures": 10, "labels": dict.fromkeys(labels, 3)}
    split = {
        "group_by": "content",
        "folds": 5,
        "fold": 0,
        "pictures": 30,
        "left_out": {"cross_split_links": 0},
        "splits": dict.fromkeys(("train", "val", "test"), part),
    }
    return report.ReportData(
        metrics,
        params.confidence,
        sidecar,
        split_predictions,
        report.panels(split_predictions, sidecar, metrics, params),
        [],
        [],
        Galleries([], [], []),
        0,
        split,
        {},
        [],
    )
