"""A small board of two drawn kinds of pictures, and the train stage run on it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from stages.config.compose import compose
from stages.workspace import shards
from stages.workspace.paths import SHARDS, SPLITS

ROOT = Path(__file__).parents[1]
HOUSE = {"name": "house", "kind": "binary", "labels": ["striped", "plain"]}
AXES = {"name": "axes", "kind": "multilabel", "labels": ["striped", "dark"]}
SMALL = {
    "size": 64,
    "epochs": 30,
    "patience": 30,
    "batch_size": 16,
    "hidden": 32,
    "tag_min": 12,
    "parts": "content",
    "pooled_stages": None,
    "augmented_copies": 0,
    "heads": 1,
    "threads": 1,
}


def drawn(image_id: int) -> bytes:
    """A picture with stripes if the id is odd, and dark if id % 4 is 0 or 1; colour and noise depend on the id."""
    random = np.random.default_rng(image_id)
    seen = np.broadcast_to(random.integers(0, 256, (1, 1, 3)), (72, 72, 3)).astype(float)
    if image_id % 2:
        seen = seen + 90 * np.sin(np.arange(72) / random.uniform(1, 3))[:, None, None]
    if image_id % 4 < 2:
        seen = seen / 3
    file = io.BytesIO()
    Image.fromarray((seen + random.normal(0, 40, seen.shape)).clip(0, 255).astype("u1")).save(file, "PNG")
    return file.getvalue()


def put(folder: Path, policy: dict[str, Any] = HOUSE) -> None:
    """Write splits of 64 and 40 pictures, and two shards; every ninth picture has a wrong label."""
    ids = range(1, 105)
    facts = {image_id: (image_id % 2 == 1, image_id % 4 < 2) for image_id in ids}
    for name, chosen in {"train": ids[:64], "val": ids[64:]}.items():
        rows = []
        for image_id in chosen:
            striped, dark = facts[image_id if image_id % 9 else image_id + 1 if image_id < 104 else 1]
            labels = [label for label, holds in (("striped", striped), ("dark", dark)) if holds]
            tags = ["drawn", *(["lines"] if striped else []), "artist:someone", f"number {image_id}"]
            row = {"image_id": image_id, "group": image_id, "tags": tags}
            multilabel = policy["kind"] == "multilabel"
            rows.append(row | ({"labels": labels} if multilabel else {"label": "striped" if striped else "plain"}))
        path = folder / SPLITS[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        described = {b"mlpy": json.dumps({"policy": policy}).encode()}
        pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(described), path)
    for number, of_shard in enumerate((ids[:50], ids[50:])):
        pictures = ({"image_id": one, "bytes": drawn(one), "width": 72, "height": 72} for one in of_shard)
        shards.write(folder / SHARDS / shards.name(number), pictures)


def put_params(folder: Path, model: str = "probe", **values: Any) -> None:
    """Write `params.yaml` for a small training; `values` are parameters of the train section or of its model."""
    section = yaml.safe_load(compose([f"model={model}"], ROOT / "conf"))["train"]
    for name, value in {**SMALL, **values}.items():
        if name in section["model"]:
            section["model"][name] = value
        elif name in section or name in values:
            section[name] = value
    (folder / "params.yaml").write_text(yaml.safe_dump({"train": section}))


def environment(cache: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC", "MLPY", "PYTHON"))}
    return kept | {"PYTHONPATH": str(ROOT), "MLPY_CACHE": str(cache)}


def started(folder: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env=environment(cache),
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, cache: Path) -> tuple[int, str]:
    done = forks.run(forks.TRAINING, "stages.train", folder=folder, environment=environment(cache))
    return done.returncode, done.stderr
