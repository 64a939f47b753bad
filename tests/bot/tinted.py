"""A tiny model of any kind, whose scores are known beforehand: each label's rises with the mean of one colour."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from stages.inference.predictor import Predictor
from stages.inference.sidecar import Sidecar, decided

SIZE = 32
KINDS = ("binary", "multiclass", "multilabel")


def labels(kind: str) -> tuple[str, ...]:
    """Names in the order of the colours red, green, blue; a binary policy has but the first and the last."""
    return ("red", "blue") if kind == "binary" else ("red", "green", "blue")


def sidecar(kind: str = "binary") -> Sidecar:
    return Sidecar(
        name="tinted",
        kind=kind,  # type: ignore[arg-type]
        labels=labels(kind),
        size=SIZE,
        background=128,
        thresholds=dict.fromkeys(decided(kind, labels(kind)), 0.6),
        calibration={"temperature": 1.0, "bias": [0.0], "goal": "f1", "goal_share": None},
        policy={"name": "tinted", "kind": kind, "labels": list(labels(kind))},
        data={"train": "0" * 32, "val": "0" * 32},
        code="unknown",
        params={},
        metrics={},
    )


def predictor(folder: Path, kind: str = "binary") -> Predictor:
    """Writes and loads the model: softmax of the means / 50, or, multilabel, the logistic of (mean - 128) / 50."""
    colours = np.eye(3, dtype=np.float32)[:, [0, 2] if kind == "binary" else [0, 1, 2]] / 50
    shift = np.full(colours.shape[1], -128 / 50, np.float32)
    last = helper.make_node("Sigmoid", ["logits"], ["scores"])
    if kind != "multilabel":
        last = helper.make_node("Softmax", ["logits"], ["scores"], axis=1)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "colours"], ["picked"]),
            helper.make_node("Add", ["picked", "shift"], ["logits"]),
            last,
        ],
        "tinted",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", len(shift)])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(colours, "colours"),
            numpy_helper.from_array(shift, "shift"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"labels": json.dumps(labels(kind))})
    path = folder / f"{kind}.onnx"
    path.write_bytes(model.SerializeToString())
    sidecar(kind).write(path.with_suffix(".json"))
    return Predictor(path)


def file(*colours: object, kind: str = "PNG", side: int = 40) -> bytes:
    """A picture of one colour, or an animation of several."""
    images = [Image.new("RGB", (side, side), colour) for colour in colours]  # type: ignore[arg-type]
    out = io.BytesIO()
    several = {"save_all": True, "append_images": images[1:], "duration": 50} if images[1:] else {}
    images[0].save(out, kind, **several)
    return out.getvalue()
