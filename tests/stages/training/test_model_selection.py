"""Which graph is served."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from stages.config.train import Train
from stages.dataset.arrays import Rows
from stages.dataset.targets import Examples, Task
from stages.training.calibration import Calibration
from stages.training.model_selection import SelectedModel, select_model
from stages.training.networks import ExportModel
from stages.training.quantisation import SPARED
from stages.training.validation import validate_scores
from stages.workspace import paths
from stages.workspace.parameters import validated

ROOT = Path(__file__).parents[3]
LABELS = ("bright", "dark")


class Brightness(nn.Module):
    """uint8 pixels -> a logit of brightness, after more convolutions than stay fp32; each is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Sequential(*(nn.Conv2d(3, 3, 1, bias=False) for _ in range(SPARED + 2)))
        for each in self.same:
            each.weight.data = torch.eye(3).reshape(3, 3, 1, 1)  # type: ignore[operator, union-attr]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        bright = self.same(pixels.permute(0, 3, 1, 2).float() / 255).mean((1, 2, 3)).reshape(-1, 1, 1)
        return bright, bright[..., :0]


def rows(folder: Path, pictures: np.ndarray) -> Rows:
    np.save(folder / "pictures.npy", pictures)
    return Rows((folder / "pictures.npy",), ("",), (np.arange(len(pictures)),))


def selected(folder: Path, train_greys: range, val_greys: range, params: Train) -> SelectedModel:
    """Choose between the graphs of `Brightness` on grey pictures, of which the lighter half is labelled bright."""
    greys = np.array([*train_greys, *val_greys], np.uint8)
    pictures = rows(folder, np.broadcast_to(greys[:, None, None, None], (len(greys), 8, 8, 3)))
    splits = []
    for ids in np.split(np.arange(len(greys)), [len(train_greys)]):
        bright = greys[ids] > np.median(greys[ids])
        labels = np.stack([bright, ~bright], 1).astype(np.float32)
        splits.append(Examples(ids, labels, np.zeros((len(ids), 0), bool), np.ones((len(ids), 1), np.float32)))
    task = Task({"name": "light", "kind": "binary", "labels": LABELS}, (), *splits)
    model = ExportModel(None, Brightness(), "binary", Calibration())
    with torch.no_grad():
        scores = model(torch.from_numpy(pictures.take(splits[1].ids))).numpy()
    validation = validate_scores(scores, Calibration(), task, params)
    return select_model(model, None, validation, task, pictures, pictures, params, folder)


@pytest.mark.parametrize(("darkest", "precision"), [(100, "int8"), (0, "fp32")], ids=["alike", "all dark"])
def test_int8_is_served_only_if_it_costs_little(
    darkest: int, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    params = dataclasses.replace(validated(Train, section), int8_drop=0.002, threads=1)
    model = selected(tmp_path, range(darkest, darkest + 100, 5), range(100, 200, 5), params)
    assert model.precision == precision
    assert model.auroc["fp32"] == model.validation.metrics["auroc"] == 1
    assert model.auroc["int8"] == (1 if precision == "int8" else 0.5)
    assert paths.MODEL.read_bytes() == (paths.GRAPHS / f"{precision}.onnx").read_bytes()
    assert caplog.messages[-1] == (
        f"the model is served in {precision}: int8 has a validation AUROC of {model.auroc['int8']:.4f}, fp32 of "
        "1.0000, and train.int8_drop allows a drop of less than 0.002"
    )
