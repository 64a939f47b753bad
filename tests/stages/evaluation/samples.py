"""Small predictions and shards for the tests of this room."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.evaluation.predictions import Predictions
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
