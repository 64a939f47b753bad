"""The train stage as a user runs it, on a small board of two drawn kinds of pictures: files in, files out."""

from __future__ import annotations

import json
import logging.handlers
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from striped import AXES, HOUSE, drawn, put, put_params, run, started

from stages import train
from stages.inference.predictor import Predictor
from stages.workspace import shards
from stages.workspace.errors import ModelError
from stages.workspace.paths import CHECKPOINT, GRAPHS, MODEL, SHARDS, SIDECAR, SPLITS, TRAIN_METRICS, TRAIN_PLOTS


def cached_files(cache: Path) -> dict[str, int]:
    """When each cached file was written: decoded pictures, features, the stem's graph."""
    return {str(file): file.stat().st_mtime_ns for kind in ("npy", "onnx") for file in cache.glob(f"*/*.{kind}")}


def copied(board: Path, folder: Path) -> Path:
    """A new folder with the inputs of a board's training."""
    for name in (SPLITS["train"].parent, SHARDS):
        shutil.copytree(board / name, folder / name)
    shutil.copy(board / "params.yaml", folder)
    return folder


def run_here(folder: Path, cache: Path) -> str:
    """Train in this process, which has imported torch already, and return the log."""
    heard = logging.handlers.BufferingHandler(1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLPY_CACHE", str(cache))
        logger = logging.getLogger("stages")
        patch.setattr(logger, "level", logging.INFO)
        logger.addHandler(heard)
        train.main()
        logger.removeHandler(heard)
    return "\n".join(record.getMessage() for record in heard.buffer)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    put(folder)
    put_params(folder, augmented_copies=1, heads=2)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(board: Path, cache: Path) -> tuple[Path, str]:
    """The folder of an uninterrupted run, and its log."""
    code, said = run(board, cache)
    assert code == 0, said
    return board, said


@pytest.fixture(scope="module")
def resumed(uninterrupted: tuple[Path, str], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run that was killed after its first epoch, and the log of its second attempt."""
    folder = copied(uninterrupted[0], tmp_path_factory.mktemp("resumed") / "board")
    running = started(folder, cache)
    while not list(cache.glob("training/*/last.ckpt")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.002)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert not (folder / "models").exists()
    return folder, run_here(folder, cache)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a board into the current folder, to train in this process: `here(policy, **params)`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))

    def fill(policy: dict[str, Any] = HOUSE, **values: Any) -> None:
        put(tmp_path, policy)
        weights = {} if values.get("model") == "mini_xception" else {"weights": "none"}
        put_params(tmp_path, **{"size": 32, "epochs": 1} | weights | values)

    return fill


def test_a_run_leaves_its_outs_and_nothing_else(uninterrupted: tuple[Path, str]) -> None:
    folder, said = uninterrupted
    files = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    inputs = {Path("params.yaml"), *SPLITS.values(), *(SHARDS / shards.name(number) for number in (0, 1))}
    plots = {TRAIN_PLOTS / f"{name}.tsv" for name in ("auroc", "average_precision", "loss_train", "loss_val")}
    graphs = {GRAPHS / "fp32.onnx", GRAPHS / "int8.onnx"}
    assert files - inputs == {MODEL, SIDECAR, CHECKPOINT, TRAIN_METRICS, *graphs, *plots}
    assert said.splitlines()[-1].startswith("validation after 30 epochs: auroc ")


def test_the_sidecar_describes_the_model(uninterrupted: tuple[Path, str]) -> None:
    said = json.loads((uninterrupted[0] / SIDECAR).read_text())
    assert (said["name"], said["kind"], said["labels"]) == ("house", "binary", HOUSE["labels"])
    assert (said["size"], said["background"], said["resize"]) == (64, 128, "letterbox")
    assert said["thresholds"].keys() == {"striped"}
    assert said["calibration"].keys() == {"temperature", "bias", "threshold_objective", "target_rate"}
    assert said["policy"] == HOUSE
    assert said["params"]["epochs"] == 30
    assert {len(digest) for digest in said["data"].values()} == {32}
    assert said["code"] == "unknown", "a folder that is no git clone"


def test_the_metrics_are_the_sidecars_and_good(uninterrupted: tuple[Path, str]) -> None:
    metrics = json.loads((uninterrupted[0] / TRAIN_METRICS).read_text())
    assert metrics["epochs"] == 30
    assert metrics["val"] == json.loads((uninterrupted[0] / SIDECAR).read_text())["metrics"]
    assert 0.8 < metrics["val"]["auroc"] < 1, "every ninth picture is labelled wrongly"


def test_the_curves_have_a_row_per_epoch(uninterrupted: tuple[Path, str]) -> None:
    for file in (uninterrupted[0] / TRAIN_PLOTS).iterdir():
        head, *rows = file.read_text().splitlines()
        assert (head, len(rows)) == (f"step\t{file.stem}", 30)


def test_every_epoch_is_a_line_of_the_log(uninterrupted: tuple[Path, str]) -> None:
    values = "auroc [\\d.]+, average_precision [\\d.]+, loss_train [\\d.]+, loss_val [\\d.]+"
    epochs = re.findall(f"train: epoch (\\d+) of 30, {values}, [\\d.]+ s each, at most [\\d:]+ left", uninterrupted[1])
    assert epochs == [str(number) for number in range(1, 31)]


def test_the_model_tells_the_two_kinds_apart(uninterrupted: tuple[Path, str]) -> None:
    found = Predictor(uninterrupted[0] / MODEL).judge([drawn(image_id) for image_id in range(1000, 1020)])
    expected = ["striped" if image_id % 2 else "plain" for image_id in range(1000, 1020)]
    assert sum(one.verdict == truth for one, truth in zip(found, expected, strict=True)) >= 17


def test_a_killed_training_resumes(resumed: tuple[Path, str]) -> None:
    assert "resuming from epoch" in resumed[1]


def test_a_resumed_training_ends_as_an_uninterrupted_one(
    uninterrupted: tuple[Path, str], resumed: tuple[Path, str]
) -> None:
    first, second = (json.loads((folder / TRAIN_METRICS).read_text()) for folder, _ in (uninterrupted, resumed))
    assert second["epochs"] == first["epochs"]
    assert second["val"] == pytest.approx(first["val"], abs=5e-5)


def test_a_second_model_gives_the_same_scores(uninterrupted: tuple[Path, str], resumed: tuple[Path, str]) -> None:
    pictures = [drawn(image_id) for image_id in range(65, 105)]
    first, second = (
        [one.score for one in Predictor(folder / MODEL).judge(pictures)] for folder in (uninterrupted[0], resumed[0])
    )
    assert second == pytest.approx(first, abs=5e-5)


def test_the_curves_of_a_resumed_training_are_complete(
    uninterrupted: tuple[Path, str], resumed: tuple[Path, str]
) -> None:
    first, second = (
        (folder / TRAIN_PLOTS / "average_precision.tsv").read_text() for folder, _ in (uninterrupted, resumed)
    )
    assert [row.split("\t")[0] for row in second.splitlines()] == [row.split("\t")[0] for row in first.splitlines()]


def test_nothing_is_decoded_or_computed_twice(
    uninterrupted: tuple[Path, str], cache: Path, request: pytest.FixtureRequest
) -> None:
    before = cached_files(cache)
    assert {Path(file).parent.name for file in before} == {"decoded", "features", "augmented-0", "graphs"}
    request.getfixturevalue("resumed")
    assert cached_files(cache) == before


def test_two_processes_train_as_well_as_one(uninterrupted: tuple[Path, str], cache: Path, tmp_path: Path) -> None:
    scores = [json.loads((uninterrupted[0] / TRAIN_METRICS).read_text())["val"]["auroc"]]
    for seed in (1, 2):
        folder = copied(uninterrupted[0], tmp_path / str(seed))
        put_params(folder, augmented_copies=1, heads=2, seed=seed, int8_drop=None)
        run_here(folder, cache)
        scores.append(json.loads((folder / TRAIN_METRICS).read_text())["val"]["auroc"])
    folder = copied(uninterrupted[0], tmp_path / "ddp")
    put_params(folder, augmented_copies=1, heads=2, devices=2, strategy="ddp", int8_drop=None)
    code, said = run(folder, cache)
    assert code == 0, said
    scores.append(json.loads((folder / TRAIN_METRICS).read_text())["val"]["auroc"])
    *alone, together = scores
    spread = max(alone) - min(alone)
    assert min(alone) - spread <= together <= max(alone) + spread


def test_a_finished_training_leaves_no_resume_state(resumed: tuple[Path, str], cache: Path) -> None:
    assert list(cache.glob("training/*/")) == []


def test_ctrl_c_stops_the_training_and_keeps_its_checkpoints(
    here: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(model="mini_xception", epochs=500, patience=500)

    def press() -> None:
        while not list(tmp_path.glob("cache/training/*/last.ckpt")):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        train.main()
    assert list(tmp_path.glob("cache/training/*/last.ckpt"))
    assert not MODEL.exists()


def test_a_multilabel_policy_trains_the_network_of_2020(here: Callable[..., None]) -> None:
    here(AXES, model="mini_xception", augment=True)
    train.main()
    said = json.loads(SIDECAR.read_text())
    assert said["kind"] == "multilabel"
    assert said["thresholds"].keys() == {"striped", "dark"}
    assert Predictor(MODEL).score(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 2)


def test_a_backbone_is_finetuned(here: Callable[..., None]) -> None:
    here(model="finetune", backbone="test_efficientnet", trained_blocks=2)
    train.main()
    assert json.loads(TRAIN_METRICS.read_text())["epochs"] == 1
    scores = Predictor(MODEL).score(np.zeros((2, 32, 32, 3), np.uint8))
    assert scores.sum(1) == pytest.approx([1, 1])


@pytest.mark.parametrize("batch_size", [16, 64], ids=["in training", "in validation"])
def test_an_infinite_loss_says_what_to_change(here: Callable[..., None], batch_size: int) -> None:
    here(model="mini_xception", lr=1e30, batch_size=batch_size, epochs=2)
    with pytest.raises(ModelError, match=r"the loss became (nan|inf) in epoch 0: lower train\.lr \(it is 1e\+30\)"):
        train.main()
    assert not MODEL.exists()


def test_a_warmup_of_exactly_one_step_is_no_error(here: Callable[..., None]) -> None:
    here(model="mini_xception", epochs=5, batch_size=16, warmup=0.05)  # 4 batches per epoch, so 20 steps
    train.main()
    assert json.loads(TRAIN_METRICS.read_text())["epochs"] == 5


def test_a_picture_that_is_in_no_shard_is_an_error(here: Callable[..., None]) -> None:
    here(model="mini_xception")
    (SHARDS / shards.name(1)).unlink()
    with pytest.raises(ModelError, match=r"image \d+ is in a split but in no shard; run `dvc repro split`"):
        train.main()


def test_without_shards_the_error_says_what_to_run(here: Callable[..., None]) -> None:
    here()
    shutil.rmtree(SHARDS)
    with pytest.raises(ModelError, match=r"^no shards in data/download/shards; run `dvc repro download`$"):
        train.main()
