"""int8 graphs: the same bytes each time, near the fp32 graph's scores, and served only where they cost little."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import Tensor, nn

from stages.config.train import Train
from stages.dataset.arrays import Rows
from stages.dataset.targets import Examples, Task
from stages.inference.runtime import session
from stages.training.calibration import Calibration
from stages.training.export import chain, export
from stages.training.model_selection import SelectedModel, select_model
from stages.training.networks import ExportModel, MiniXception
from stages.training.quantisation import SPARED, quantise
from stages.training.validation import validate_scores
from stages.workspace import paths
from stages.workspace.parameters import validated

ROOT = Path(__file__).parents[3]
LABELS = ("bright", "dark")
AGAIN = """
import logging; from pathlib import Path; import numpy as np
logging.basicConfig(level=logging.INFO)  # as a stage has it
from stages.dataset.arrays import Rows; from stages.training.quantisation import quantise
rows = Rows((Path("pictures.npy"),), ("",), (np.arange(40),))
quantise(Path("fp32.onnx"), Path("again.onnx"), rows, rows.ids[0])
"""


class Brightness(nn.Module):
    """uint8 pixels -> a logit of brightness, through more convolutions than are spared; each changes nothing."""

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


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """A folder with a network's fp32 graph, and pictures."""
    folder = tmp_path_factory.mktemp("noise")
    torch.manual_seed(0)
    network = MiniXception(0.0, 1, 0).eval()
    last = [each for each in network.modules() if isinstance(each, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight[0] *= 1e-12  # so that the quantiser has a scale to mend, of which it tells
    export(ExportModel(None, network, "binary", Calibration()), folder / "fp32.onnx", (32, 32, 3))
    chain([folder / "fp32.onnx"], folder / "fp32.onnx", LABELS)
    return folder, rows(folder, np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8))


@pytest.fixture(scope="module")
def quantised(noise: tuple[Path, Rows]) -> Path:
    folder, pictures = noise
    before = set(Path(tempfile.gettempdir()).iterdir())
    assert quantise(folder / "fp32.onnx", folder / "int8.onnx", pictures, pictures.ids[0])
    assert {path.name for path in folder.iterdir()} == {"fp32.onnx", "int8.onnx", "pictures.npy"}
    left = set(Path(tempfile.gettempdir()).iterdir()) - before
    assert [path for path in left if "quant" in path.name] == []
    return folder / "int8.onnx"


def test_the_scores_are_near_those_of_fp32(noise: tuple[Path, Rows], quantised: Path) -> None:
    folder, pictures = noise
    seen = {"pixels": pictures.take(pictures.ids[0])}
    one, other = (session(path, 1).run(None, seen)[0] for path in (folder / "fp32.onnx", quantised))
    assert 0 < np.abs(one - other).max() < 0.02


def test_the_labels_stay_and_are_the_only_note(quantised: Path) -> None:
    assert {each.key: each.value for each in onnx.load(quantised).metadata_props} == {"labels": '["bright", "dark"]'}


def test_it_needs_no_operators_but_the_standards(quantised: Path) -> None:
    assert [opset.domain for opset in onnx.load(quantised).opset_import] == [""]


def test_the_head_and_the_first_convolutions_stay_fp32(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    whole = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node.input[1] in whole for node in graph.node if node.op_type == "Conv"]
    assert convolutions == [False] * SPARED + [True] * (len(convolutions) - SPARED)
    heads = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert heads
    assert all(whole.isdisjoint(node.input) for node in heads)


def test_another_process_gives_the_same_bytes_and_says_nothing(noise: tuple[Path, Rows], quantised: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", AGAIN], cwd=noise[0], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    again = noise[0] / "again.onnx"
    assert again.read_bytes() == quantised.read_bytes()
    again.unlink()


def test_a_graph_without_convolutions_is_left_alone(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2), nn.Sigmoid())

    class Flat(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return network(pixels.float())

    export(Flat(), tmp_path / "fp32.onnx", (4, 4, 3))
    pictures = rows(tmp_path, np.zeros((4, 4, 4, 3), np.uint8))
    assert not quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", pictures, pictures.ids[0])
    assert not (tmp_path / "int8.onnx").exists()


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
    return select_model(model, validation, task, pictures, pictures, params, folder)


@pytest.mark.parametrize(("darkest", "precision"), [(100, "int8"), (0, "fp32")], ids=["alike", "all dark"])
def test_int8_is_not_served_where_training_pictures_tell_nothing_of_others(
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
