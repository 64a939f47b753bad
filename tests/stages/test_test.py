"""The test stage on a model that scores a picture by how bright it is."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

import stages.test
from stages.evaluation import curves, report
from stages.inference.sidecar import Sidecar
from stages.training.export import chain, export
from stages.workspace import paths, shards
from stages.workspace.errors import ModelError
from tests.stages.evaluation.samples import write_split_summary

GREYS = [40, 200, 60, 120, 220, 90, 160, 240, 140, 30, 180, 210]
"""Brightness of each picture; its score is this / 255."""
BRIGHT = {1, 3, 4, 7, 10, 11}
"""Places of the pictures labelled bright. At the threshold .5, 120 is a false negative, 140 and 160 false positives."""
RULE = {"any": ["bright"], "all": [], "none": [], "rest": False}


class Brightness(nn.Module):
    """uint8 pixels -> scores of bright and (unless alone) of dark."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, pixels: Tensor) -> Tensor:
        bright = pixels.float().mean((1, 2, 3)).unsqueeze(1) / 255
        return torch.cat([bright, 1 - bright], 1)[:, : self.labels]


def picture(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (20, 20), grey).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=["binary", "multilabel"])
def done(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The kind of policy, and the folder that the stage ran in."""
    folder = tmp_path_factory.mktemp(request.param)
    prepare(folder, request.param)
    run(folder)
    return request.param, folder


def prepare(folder: Path, kind: str = "binary") -> None:
    labels = ("bright", "dark") if kind == "binary" else ("bright",)
    rules = {"bright": RULE, "dark": {**RULE, "any": [], "rest": True}}
    policy = {"name": "light", "kind": kind, "labels": list(labels), "rules": {label: rules[label] for label in labels}}
    count = len(GREYS)
    labels_column = pa.array(
        [["bright"] if place in BRIGHT else ["dark"] * (kind == "binary") for place in range(count)]
    )
    table = pa.table(
        {
            "image_id": list(range(10, 10 + count)),
            "label" if kind == "binary" else "labels": labels_column.flatten() if kind == "binary" else labels_column,
            "url": [f"http://sample.localhost/img/{place}.png" for place in range(count)],
            "artist": ["<script>alert(1)</script>"] * count,
            "tags": [["<b>", "é"]] * count,
            "group": [place // 2 for place in range(count)],
            "width": [20] * count,
            "height": [20] * count,
            "format": ["png"] * count,
            "created_at": [dt.datetime.fromisoformat(f"2012-05-{1 + place:02}") for place in range(count)],
        }
    ).replace_schema_metadata({"mlpy": json.dumps({"policy": policy})})
    target = folder / paths.SPLITS["test"]
    target.parent.mkdir(parents=True)
    pq.write_table(table, target)
    write_split_summary(folder, list(labels))
    facts = {"sha256": "", "width": 20, "height": 20, "format": "png"}
    rows = ({"image_id": 10 + place, "bytes": picture(grey), **facts} for place, grey in enumerate(GREYS))
    (folder / paths.SHARDS).mkdir(parents=True)
    shards.write(folder / paths.SHARDS / shards.name(0), rows)
    (folder / "models").mkdir()
    export(Brightness(len(labels)), folder / paths.MODEL, (32, 32, 3))
    chain([folder / paths.MODEL], folder / paths.MODEL, labels)
    Sidecar(
        name="light",
        kind=kind,  # type: ignore[arg-type]
        labels=labels,
        size=32,
        background=128,
        thresholds={"bright": 0.5},
        calibration={"temperature": 1.0, "bias": [0.0], "threshold_objective": "f1", "target_rate": None},
        policy=policy,
        data={"train": "0" * 32, "val": "1" * 32},
        code="abc",
        params={"model": {"name": "probe", "backbone": "tf_efficientnet_lite0"}},
        metrics={"auroc": 1.0},
        origins={
            "drawn": {"pictures": 30, "licences": ["gpl-2+", "ofl"]},
            "found": {"pictures": 7, "licences": []},
        },
    ).write(folder / paths.SIDECAR)
    section = {
        "bootstrap": 100,
        "confidence": 0.9,
        "worst_count": 6,
        "corruption_count": 6,
        "saliency_count": 2,
        "parity_count": 0,
        "threads": 1,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump({"test": section}))


def run(folder: Path) -> None:
    with contextlib.chdir(folder):
        stages.test.main()


def test_the_metrics_follow_from_the_scores(done: tuple[str, Path]) -> None:
    kind, folder = done
    metrics = json.loads((folder / paths.TEST_METRICS).read_text())
    bright = [GREYS[place] for place in BRIGHT]
    dark = [grey for place, grey in enumerate(GREYS) if place not in BRIGHT]
    assert metrics["auroc"] == pytest.approx(np.mean([b > d for b in bright for d in dark]), abs=1e-6)
    assert metrics["recall"] == pytest.approx(5 / 6, abs=1e-6)
    assert metrics["precision"] == pytest.approx(5 / 7, abs=1e-6)
    assert metrics["threshold"] == 0.5
    assert (metrics["pictures"], metrics["groups"]) == (12, 6)
    for name in ("auroc", "average_precision", "f1", "precision", "recall"):
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    other = "dark" if kind == "binary" else "none"
    assert metrics["confusion"] == {"bright": {"bright": 5, other: 1}, other: {"bright": 2, other: 4}}


def test_every_picture_has_a_prediction(done: tuple[str, Path]) -> None:
    kind, folder = done
    rows = pq.read_table(folder / paths.PREDICTIONS).to_pylist()
    assert [row["image_id"] for row in rows] == list(range(10, 22))
    assert [round(row["score_bright"] * 255) for row in rows] == GREYS
    harmless = "dark" if kind == "binary" else "none"
    assert [row["verdict"] for row in rows] == ["bright" if grey >= 128 else harmless for grey in GREYS]
    assert ("label" in rows[0], "labels" in rows[0]) == (kind == "binary", kind == "multilabel")


def test_the_plots_are_tables(done: tuple[str, Path]) -> None:
    _, folder = done
    plots = folder / paths.TEST_PLOTS
    assert {path.name for path in plots.iterdir()} == {
        f"{name}.csv" for name in ("roc", "precision_recall", "reliability", "confusion", "slices", "corruptions")
    }
    roc = (plots / "roc.csv").read_text().splitlines()
    assert (roc[:2], roc[-1]) == (["false_positive_rate,true_positive_rate", "0.0,0.0"], "1.0,1.0")
    assert (plots / "precision_recall.csv").read_text().startswith("recall,precision\n")
    assert len((plots / "confusion.csv").read_text().splitlines()) == 13


def test_curves_are_averaged_at_evenly_spaced_x() -> None:
    rising, falling = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    assert curves.averaged([falling]) is falling
    assert set(curves.averaged([rising, falling])[:, 1]) == {0.5}


def test_the_report_is_one_offline_page_and_runs_no_script_but_its_own(done: tuple[str, Path]) -> None:
    _, folder = done
    page = (folder / paths.REPORT).read_text()
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [' type="application/json" id="steps"', ""]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in page
    fetched = re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", page)
    assert {address for address in fetched if not address.startswith("data:image/jpeg;")} == {
        *("label_issues.csv", "metrics.json", "../../models/README.md"),
    }
    assert all((folder / paths.REPORT.parent / address).exists() for address in fetched if "data:" not in address)


def test_each_picture_is_shown_once(done: tuple[str, Path]) -> None:
    _, folder = done
    page = (folder / paths.REPORT).read_text()
    shown = re.findall(r'aria-label="show image (\d+)"', page)
    assert shown.count("13") == shown.count("16") == shown.count("18") == 1, "the mistakes"
    assert len(shown) == len(set(shown)) == 5, "and two that were right"


def test_the_model_card_has_its_sections(done: tuple[str, Path]) -> None:
    _, folder = done
    card = (folder / paths.MODEL_CARD).read_text()
    headings = re.findall("^## (.+)$", card, re.MULTILINE)
    assert headings == [
        *("Intended use", "Out of scope", "Data and licence", "Results", "Thresholds", "Failures", "Appeal"),
    ]
    assert "- **bright**: any of bright" in card
    assert "| drawn | 30 | gpl-2+, ofl |\n| found | 7 | not stated |\n" in card
    assert "- bright: 0.500" in card
    assert "is read\nat each run of the test stage: 12 pictures" in card


def test_report_and_model_card_have_the_figures_of_the_metrics(done: tuple[str, Path]) -> None:
    _, folder = done
    metrics = json.loads((folder / paths.TEST_METRICS).read_text())
    card = (folder / paths.MODEL_CARD).read_text()
    page = html.unescape((folder / paths.REPORT).read_text())
    for name, title in report.METRIC_NAMES.items():
        value, low, high = (f"{metrics[name + end]:.3f}" for end in ("", "_low", "_high"))
        assert f"| {title} | {value} | {low} to {high} |\n" in card
        assert f'<td>{title}</td><td class="number">{value}</td><td class="interval">{low} to {high}</td>' in page
    (headline,) = re.findall(r"<h1>(.+)</h1>", page)
    assert f"**{headline}.**" in card
    assert f"{100 * metrics['recall_at_1_percent_fpr']:.0f}\u00a0%" in headline


def test_a_second_run_gives_the_same_bytes(done: tuple[str, Path]) -> None:
    _, folder = done
    files = [folder / "models/README.md", *(path for path in (folder / "data/test").rglob("*") if path.is_file())]
    before = {path: path.read_bytes() for path in files}
    run(folder)
    assert {path: path.read_bytes() for path in files} == before


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def test_errors_say_what_is_wrong_and_what_to_do(fresh: Path) -> None:
    sidecar = json.loads((fresh / paths.SIDECAR).read_text())
    (fresh / paths.SIDECAR).write_text(json.dumps({**sidecar, "policy": {"name": "other"}}))
    assert refused(fresh) == (
        "data/split/test.parquet was made for the policy light, but the model was trained for other or for other rules "
        "of it; run `dvc repro`"
    )
    (fresh / paths.SIDECAR).write_text(json.dumps(sidecar))
    next((fresh / paths.SHARDS).iterdir()).unlink()
    assert refused(fresh) == "12 pictures of data/split/test.parquet are in no shard; run `dvc repro split`"
    (fresh / paths.SPLIT_SUMMARY).write_text("[]")
    assert refused(fresh) == (
        "data/split/summary.json is missing or not what the split stage writes; run `dvc repro split`"
    )
    (fresh / paths.MODEL).unlink()
    assert refused(fresh).startswith("no model models/moderator.onnx; make one with `dvc repro train`")


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        run(folder)
    assert not (folder / "data/test").exists()
    return str(caught.value)
