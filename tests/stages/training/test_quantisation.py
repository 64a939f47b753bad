"""int8 graphs: reproducible, with scores close to the fp32 graph's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from stages.dataset.arrays import Rows
from stages.inference.runtime import session
from stages.training.calibration import Calibration
from stages.training.export import chain, export
from stages.training.networks import ExportModel, MiniXception
from stages.training.quantisation import SPARED, UnquantisableError, quantise

ROOT = Path(__file__).parents[3]
LABELS = ("bright", "dark")
AGAIN = """
import logging; from pathlib import Path; import numpy as np
logging.basicConfig(level=logging.INFO)  # as a stage has it
from stages.training.quantisation import quantise
quantise(Path("fp32.onnx"), Path("again.onnx"), np.load("pictures.npy"))
"""


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
    quantise(folder / "fp32.onnx", folder / "int8.onnx", pictures.take(pictures.ids[0]))
    assert {path.name for path in folder.iterdir()} == {"fp32.onnx", "int8.onnx", "pictures.npy"}
    left = set(Path(tempfile.gettempdir()).iterdir()) - before
    assert [path for path in left if "quant" in path.name] == []
    return folder / "int8.onnx"


def test_the_scores_are_near_those_of_fp32(noise: tuple[Path, Rows], quantised: Path) -> None:
    folder, pictures = noise
    seen = {"pixels": pictures.take(pictures.ids[0])}
    one, other = (session(path, 1).run(None, seen)[0] for path in (folder / "fp32.onnx", quantised))
    assert 0 < np.abs(one - other).max() < 0.02


def test_the_labels_are_the_only_metadata(quantised: Path) -> None:
    assert {each.key: each.value for each in onnx.load(quantised).metadata_props} == {"labels": '["bright", "dark"]'}


def test_it_needs_only_standard_operators(quantised: Path) -> None:
    assert [opset.domain for opset in onnx.load(quantised).opset_import] == [""]


def test_the_head_and_the_first_convolutions_stay_fp32(quantised: Path) -> None:
    graph = onnx.load(quantised).graph
    whole = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node.input[1] in whole for node in graph.node if node.op_type == "Conv"]
    assert convolutions == [False] * SPARED + [True] * (len(convolutions) - SPARED)
    heads = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert heads
    assert all(whole.isdisjoint(node.input) for node in heads)


def test_another_process_gives_the_same_bytes_and_logs_nothing(noise: tuple[Path, Rows], quantised: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", AGAIN], cwd=noise[0], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    again = noise[0] / "again.onnx"
    assert again.read_bytes() == quantised.read_bytes()
    again.unlink()


def test_a_graph_without_convolutions_is_not_quantised(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2), nn.Sigmoid())

    class Flat(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return network(pixels.float())

    export(Flat(), tmp_path / "fp32.onnx", (4, 4, 3))
    with pytest.raises(UnquantisableError, match="no convolutions"):
        quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", np.zeros((4, 4, 4, 3), np.uint8))
    assert not (tmp_path / "int8.onnx").exists()
