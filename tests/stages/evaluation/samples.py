"""Small predictions and shards for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.evaluation.predictions import Predictions
from stages.workspace import shards


def write_shards(folder: Path, pictures: list[bytes]) -> Path:
    columns = {"sha256": "", "width": 64, "height": 64, "format": "png"}
    shards.write(
        folder / shards.name(0),
        ({"image_id": image_id, "bytes": data, **columns} for image_id, data in enumerate(pictures)),
    )
    return folder


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
        **columns,
    }
    both = np.stack([scores, 1 - np.array(scores)], 1).astype(np.float32)
    flags = np.stack([truth, ~np.array(truth)], 1)
    return Predictions(pa.table(table), flags, both, ["flagged" if score >= 0.6 else "clean" for score in scores])
