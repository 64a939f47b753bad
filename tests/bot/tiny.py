"""A tiny model and pictures whose scores are known beforehand: red is flagged, blue is clean."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from stages.inference.sidecar import Sidecar

SIZE = 32


def redness(
    path: Path, sharpness: float = 50.0, threshold: float = 0.6, labels: tuple[str, ...] = ("flagged", "clean")
) -> Path:
    """Write a model and its side-car. It scores the first label: the logistic of (mean red - mean blue) / `sharpness`.

    As real ones do, it takes pixels [n, 32, 32, 3] as uint8, gives scores [n, 2], and names its labels.
    """
    weights = np.array([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]], np.float32) / sharpness
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "redness",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"labels": json.dumps(labels)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    Sidecar(
        name="redness",
        kind="binary",
        labels=labels,
        size=SIZE,
        background=128,
        thresholds={labels[0]: threshold},
        calibration={"temperature": 1.0, "bias": [0.0], "goal": "f1", "goal_share": None},
        policy={"name": "redness", "kind": "binary", "labels": list(labels)},
        data={"train": "0" * 32, "val": "0" * 32, "test": "0" * 32},
        code="0" * 40,
        params={},
        metrics={"auroc": 0.9},
    ).write(path.with_suffix(".json"))
    return path


def picture(red: int, blue: int, kind: str = "PNG", seed: int = 0, side: int = 64, **options: object) -> bytes:
    """A picture whose red and blue average about these values, with a pattern of its own in green."""
    rng = np.random.default_rng(seed)
    array = np.zeros((side, side, 3), np.uint8)
    array[..., 0], array[..., 2] = red, blue
    coarse = rng.integers(0, 256, (8, 8), np.uint8)
    array[..., 1] = np.kron(coarse, np.ones((side // 8, side // 8), np.uint8))
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def red(seed: int = 0, **options: object) -> bytes:
    """Scores .98 flagged."""
    return picture(230, 30, seed=seed, **options)  # type: ignore[arg-type]


def blue(seed: int = 0, **options: object) -> bytes:
    """Scores .02 flagged."""
    return picture(30, 230, seed=seed, **options)  # type: ignore[arg-type]


def animated(frames: list[bytes], kind: str = "GIF", **options: object) -> bytes:
    """An animation of these pictures."""
    images = [Image.open(io.BytesIO(each)).convert("RGB") for each in frames]
    out = io.BytesIO()
    images[0].save(out, kind, save_all=True, append_images=images[1:], duration=100, **options)
    return out.getvalue()
