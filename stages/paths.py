"""Where every artifact lies, relative to the root. `dvc.yaml` names the same paths; a test compares them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

PARAMS = Path("params.yaml")
CONF = Path("conf")

SAMPLE_DUMP = Path("data/sample/dump.pgdump")

LITE_DUMP = Path("data/restore/lite.pgdump")
TABLES = Path("data/restore/tables.json")

IMAGES = Path("data/extract/images.parquet")
EXTRACT_SUMMARY = Path("data/extract/summary.json")

SHARDS = Path("data/download/shards")
STATUS = Path("data/download/status.parquet")
CRAWL = Path("data/download/crawl.json")

SPLITS = {name: Path(f"data/split/{name}.parquet") for name in ("train", "val", "test")}
SPLIT_SUMMARY = Path("data/split/summary.json")

MODEL = Path("models/moderator.onnx")
SIDECAR = Path("models/moderator.json")
CHECKPOINT = Path("data/train/checkpoint.ckpt")
GRAPHS = Path("data/train/graphs")
"""fp32.onnx, and where it was tried int8.onnx; `MODEL` is one of them."""
TRAIN_METRICS = Path("data/train/metrics.json")
TRAIN_PLOTS = Path("data/train/plots")

TEST_METRICS = Path("data/test/metrics.json")
TEST_PLOTS = Path("data/test/plots")
PREDICTIONS = Path("data/test/predictions.parquet")
LABEL_ISSUES = Path("data/test/label_issues.csv")
REPORT = Path("data/test/report.html")
MODEL_CARD = Path("models/README.md")


def cache_root() -> Path:
    """The one folder for resume state, databases and decoded pictures: `MLPY_CACHE`, or the user's cache folder.

    Everything in it is keyed by content and safe to delete; worktrees and queued runs share it.
    """
    root = os.environ.get("MLPY_CACHE")
    folder = Path(root).expanduser().absolute() if root else platformdirs.user_cache_path("mlpy", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it takes `target`'s place only when the block ends without an error.

    A reader sees the old file or the whole new one. A linked DVC out is read-only and shared with the cache: the
    rename unlinks it, and never writes through it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)  # mkstemp's 0600 would travel into DVC's cache
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
