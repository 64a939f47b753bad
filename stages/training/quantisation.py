"""An fp32 ONNX graph -> one whose convolutions are of 8-bit integers: static quantisation by ONNX Runtime."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from stages.dataset.arrays import Ids, Rows
from stages.inference.decoding import Pixels
from stages.training.export import PIXELS, write
from stages.workspace.files import replacing

SAMPLE = 128
"""Training pictures that the ranges of activations are measured on."""
BATCH = 16
SPARED = 6
"""Convolutions at the input that stay fp32: few channels at high resolution, where 8 bits cost most and save least."""
QUANTISED = ("Conv", "Clip", "Relu", "Add")
"""Operators of the trunk; poolings and the head, which scores hang on directly, stay fp32."""


def quantise(source: Path, target: Path, pictures: Rows, ids: Ids) -> bool:
    """Write the int8 graph of an fp32 one; the same input gives the same bytes.

    Weights have a scale for each channel, and 7 bits: a CPU without VNNI adds two products of 8 bits in 16, which 8-bit
    weights would overflow. Those of depthwise convolutions have 8, as their products are added in 32. The range of an
    activation is the mean over batches of its least and greatest values, which leaves the rarest ones out.

    Args:
        source: the fp32 graph, from uint8 `pixels` [n, size, size, 3]; its `labels` are kept.
        target: the file to write.
        pictures: uint8 rows [size, size, 3].
        ids: the training pictures, of which up to `SAMPLE`, evenly spread, are run through the graph.

    Returns:
        Whether there was anything to quantise; without, nothing is written.
    """
    chosen = ids[np.linspace(0, len(ids) - 1, min(SAMPLE, len(ids))).astype(int)]
    with tempfile.TemporaryDirectory() as name, _quiet():
        prepared, made = Path(name, "prepared.onnx"), Path(name, "int8.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        nodes = trunk(model)
        if not nodes:
            return False
        quantize_static(
            prepared,
            made,
            _Batches(pictures, chosen),
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True, "TensorQuantOverrides": depthwise(model, nodes)},
        )
        labels = {each.key: each.value for each in onnx.load(source).metadata_props}["labels"]
        with replacing(target) as aside:
            write(onnx.load(made), aside, tuple(json.loads(labels)))
    return True


def trunk(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes to quantise: all convolutions but the first `SPARED`, and what directly follows one."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    planar = [node.name for node in model.graph.node if node.op_type == "Conv" and ranks.get(node.input[1]) == 4]
    made: set[str] = set()
    found = []
    for node in model.graph.node:
        follows = node.op_type in QUANTISED and not made.isdisjoint(node.input)
        if follows or node.name in planar[SPARED:]:
            found.append(node.name)
            made.update(node.output)
    return found


def depthwise(model: onnx.ModelProto, nodes: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Name of the weights of each of these nodes that is a depthwise convolution -> 8 bits for each channel."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    eight = {"quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": False, "axis": 0}
    return {
        node.input[1]: [eight] * shapes[node.input[1]][0]
        for node in model.graph.node
        if node.op_type == "Conv" and node.name in nodes and shapes[node.input[1]][1] == 1
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser tells the root logger of each scale that it mends."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Batches(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime ships no types
    """A batch of pictures at a time, with a bar: all that is kept of one is the least and greatest of each tensor."""

    def __init__(self, pictures: Rows, ids: Ids) -> None:
        self._batches = self._read(pictures, ids)

    def get_next(self) -> dict[str, Pixels] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(pictures: Rows, ids: Ids) -> Iterator[dict[str, Pixels]]:
        with tqdm(total=len(ids), desc="int8", unit="picture", disable=None) as progress:
            for start in range(0, len(ids), BATCH):
                batch = pictures.take(ids[start : start + BATCH])
                yield {PIXELS: batch}
                progress.update(len(batch))
