"""Torch, fp32 and int8 of one trained network: which graph is served, and whether they agree on the test split."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from striped import HOUSE, put, put_params

import stages.test
from stages import train
from stages.inference.predictor import Predictor
from stages.training.quantisation import SPARED
from stages.workspace import paths
from stages.workspace.errors import ModelError
from stages.workspace.paths import CHECKPOINT, GRAPHS, MODEL, SIDECAR, SPLITS, TEST_METRICS, TRAIN_METRICS
from tests.stages.evaluation.samples import write_split_summary

RULE = {"any": [], "all": [], "none": [], "rest": True}
POLICY = HOUSE | {"rules": {"striped": RULE | {"any": ["lines"], "rest": False}, "plain": RULE}}
TESTED = {
    "bootstrap": 100,
    "confidence": 0.9,
    "worst_count": 2,
    "corruption_count": 2,
    "saliency_count": 0,
    "parity_count": 12,
    "threads": 1,
}


def trained(folder: Path, **values: Any) -> str:
    """Train a small probe in a folder that holds a board; returns what was said."""
    put_params(folder, **{"backbone": "test_efficientnet", "weights": "none", "size": 32, "epochs": 3} | values)
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("stages")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("MLPY_CACHE", str(folder.parent / "cache"))
        patch.setattr(logger, "level", logging.INFO)
        logger.addHandler(handler)
        train.main()
        logger.removeHandler(handler)
    return "\n".join(heard)


def evaluated(folder: Path, **values: Any) -> dict[str, Any]:
    """Run the test stage on the validation pictures, as if they were the test split."""
    rows = pq.read_table(folder / SPLITS["val"])
    count = rows.num_rows
    for name, column in {
        "url": [f"http://sample.localhost/img/{place}.png" for place in range(count)],
        "artist": ["someone"] * count,
        "width": [72] * count,
        "height": [72] * count,
        "format": ["png"] * count,
        "created_at": [dt.datetime.fromisoformat("2012-05-01")] * count,
    }.items():
        rows = rows.append_column(name, pa.array(column))
    pq.write_table(rows, folder / SPLITS["test"])
    write_split_summary(folder, POLICY["labels"])
    (folder / "params.yaml").write_text(yaml.safe_dump({"test": TESTED | values}))
    with contextlib.chdir(folder):
        stages.test.main()
    found: dict[str, Any] = json.loads((folder / TEST_METRICS).read_text())
    return found


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board's splits and shards, to be copied."""
    folder = tmp_path_factory.mktemp("board") / "board"
    put(folder, POLICY)
    return folder


@pytest.fixture(scope="module")
def done(board: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which int8 was allowed to cost anything, then tested; and what training said."""
    folder = tmp_path_factory.mktemp("done") / "here"
    shutil.copytree(board, folder)
    said = trained(folder, int8_drop=1.0)
    evaluated(folder)
    return folder, said


@pytest.fixture
def copied(done: tuple[Path, str], tmp_path: Path) -> Path:
    """The same, to break."""
    shutil.copytree(done[0], tmp_path / "here")
    shutil.rmtree(tmp_path / "here/data/test")
    return tmp_path / "here"


def test_the_heads_of_a_probe_learn_from_the_int8_stem_that_is_served(done: tuple[Path, str]) -> None:
    folder, _ = done
    assert (folder / MODEL).read_bytes() == (folder / GRAPHS / "int8.onnx").read_bytes()
    sidecar, metrics = (json.loads((folder / path).read_text()) for path in (SIDECAR, TRAIN_METRICS))
    assert sidecar["precision"] == "int8"
    assert sidecar["auroc"] == {"int8": sidecar["metrics"]["auroc"]}
    assert "int8" not in metrics, "nothing was quantised after the training"


def test_the_thresholds_are_of_the_scores_that_are_served(done: tuple[Path, str]) -> None:
    folder, _ = done
    sidecar = json.loads((folder / SIDECAR).read_text())
    rows = pq.read_table(folder / paths.PREDICTIONS).to_pylist()  # of the validation pictures, too
    striped = [row["label"] == "striped" for row in rows]
    given = [row["verdict"] == "striped" for row in rows]
    found = sum(truth and verdict for truth, verdict in zip(striped, given, strict=True))
    assert 2 * found / (sum(striped) + sum(given)) == pytest.approx(sidecar["metrics"]["f1"], abs=1e-6)


def test_the_predictor_loads_both_graphs(done: tuple[Path, str]) -> None:
    folder, _ = done
    assert {file.name for file in (folder / GRAPHS).iterdir()} == {"fp32.onnx", "int8.onnx"}
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    one, other = (
        Predictor(folder / GRAPHS / f"{name}.onnx", folder / SIDECAR).score(pictures) for name in ("fp32", "int8")
    )
    assert 0 < np.abs(one - other).max() < 0.2
    operators = {node.op_type for node in onnx.load(folder / GRAPHS / "int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_the_trained_blocks_of_a_finetuned_network_are_quantised_too(board: Path, tmp_path: Path) -> None:
    shutil.copytree(board, tmp_path / "here")
    said = trained(tmp_path / "here", model="finetune", trained_blocks=2, epochs=1, int8_drop=1.0)
    assert "the model is served in int8" in said
    graph = onnx.load(tmp_path / "here" / MODEL).graph
    whole_numbers = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > SPARED
    assert all(whole_numbers.issuperset(node.input[:2]) for node in convolutions[SPARED:])


def test_the_runtimes_are_compared_on_the_test_split(done: tuple[Path, str]) -> None:
    parity = json.loads((done[0] / TEST_METRICS).read_text())["parity"]
    assert parity["pictures"] == 12
    assert parity["torch"].keys() == {"auroc"}
    assert parity["fp32"]["largest_difference"] < 1e-3
    assert (parity["fp32"]["auroc"], parity["fp32"]["different_verdicts"]) == (parity["torch"]["auroc"], 0)
    assert 0 < parity["int8"]["mean_difference"] <= parity["int8"]["largest_difference"] < 0.2


@pytest.mark.parametrize("path", [paths.REPORT, paths.MODEL_CARD], ids=["report", "card"])
def test_report_and_model_card_show_the_comparison(done: tuple[Path, str], path: Path) -> None:
    text = (done[0] / path).read_text()
    assert "The served graph is int8" in text
    parity = json.loads((done[0] / TEST_METRICS).read_text())["parity"]
    assert f"{parity['fp32']['auroc']:.4f}" in text
    assert text.count("torch") >= 3


def test_without_a_drop_int8_is_not_tried_and_an_older_one_is_gone(copied: Path) -> None:
    said = trained(copied, int8_drop=None)
    assert [file.name for file in (copied / GRAPHS).iterdir()] == ["fp32.onnx"]
    assert (copied / MODEL).read_bytes() == (copied / GRAPHS / "fp32.onnx").read_bytes()
    sidecar = json.loads((copied / SIDECAR).read_text())
    assert (sidecar["precision"], list(sidecar["auroc"])) == ("fp32", ["fp32"])
    assert "int8" not in json.loads((copied / TRAIN_METRICS).read_text())
    assert "int8" not in said
    parity = evaluated(copied)["parity"]
    assert parity.keys() == {"pictures", "torch", "fp32"}


def test_a_parity_count_of_0_skips_the_comparison(copied: Path) -> None:
    (copied / CHECKPOINT).unlink()
    assert "parity" not in evaluated(copied, parity_count=0)
    assert "served graph" not in (copied / paths.REPORT).read_text()


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        evaluated(folder)
    assert not (folder / "data/test").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"labels": ["dotted", "plain"]},
            "data/train/checkpoint.ckpt was trained for the labels dotted, plain, the side-car models/moderator.json "
            "names striped, plain: restore the files of one training with `dvc checkout`, or train again with "
            "`dvc repro -f train`",
        ),
        (
            {"state_dict": {}},
            "data/train/checkpoint.ckpt holds the weights of another network than models/moderator.json",
        ),
        ({"architecture": None}, "the checkpoint data/train/checkpoint.ckpt cannot be read"),
    ],
    ids=["labels", "weights", "layout"],
)
def test_a_checkpoint_of_another_training_is_refused(copied: Path, change: dict[str, Any], said: str) -> None:
    checkpoint = torch.load(copied / CHECKPOINT, weights_only=True) | change
    torch.save({key: value for key, value in checkpoint.items() if value is not None}, copied / CHECKPOINT)
    assert refused(copied).startswith(said)


def test_a_missing_checkpoint_and_a_model_of_another_training_are_refused(copied: Path) -> None:
    (copied / CHECKPOINT).unlink()
    assert refused(copied).startswith("no checkpoint data/train/checkpoint.ckpt; get it with `dvc checkout`")


def test_a_model_that_differs_from_the_graph_of_its_sidecar_is_refused(copied: Path) -> None:
    shutil.copy(copied / GRAPHS / "fp32.onnx", copied / MODEL)
    assert refused(copied).startswith(
        "models/moderator.onnx differs from data/train/graphs/int8.onnx, which its side-car"
    )
