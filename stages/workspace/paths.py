"""The path of every artifact, relative to the repository's root. A test compares them with `dvc.yaml`."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
CONF = Path("conf")

SAMPLE_DUMP = Path("data/sample/dump.pgdump")

FOLDER_DUMP = Path("data/folder/dump.pgdump")
FOLDER_LEFT_OUT = Path("data/folder/left_out.csv")
FOLDER_SUMMARY = Path("data/folder/summary.json")

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
"""Holds fp32.onnx, and int8.onnx if quantisation was tried; `MODEL` is a copy of one of them."""
TRAIN_METRICS = Path("data/train/metrics.json")
TRAIN_PLOTS = Path("data/train/plots")

TEST_METRICS = Path("data/test/metrics.json")
TEST_PLOTS = Path("data/test/plots")
PREDICTIONS = Path("data/test/predictions.parquet")
LABEL_ISSUES = Path("data/test/label_issues.csv")
REPORT = Path("data/test/report.html")
MODEL_CARD = Path("models/README.md")
