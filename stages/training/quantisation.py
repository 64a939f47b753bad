"""An fp32 ONNX graph -> an int8 one, by ONNX Runtime's static quantisation.

A quantised tensor holds 8-bit integers, which stand for `scale * (integer - zero_point)`. Scales of weights follow from
the weights. Scales of activations are measured: the graph is run on pictures, and the least and greatest value
of each activation is recorded.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from stages.inference.decoding import Pixels
from stages.training.export import PIXELS, write_graph
from stages.workspace.files import replacing
from stages.workspace.progress import Progress

BATCH = 16
SPARED = 6
"""First convolutions, which stay fp32: with their few channels, 8 bits cost most accuracy and save least time."""
QUANTISED = ("Conv", "Clip", "Relu", "Add")
"""Operators that may be quantised. Poolings and heads stay fp32: their errors would go straight into the scores."""


class UnquantisableError(Exception):
    """The graph cannot be quantised, or would lose too much."""


def quantise(source: Path, target: Path, pictures: Pixels) -> None:
    """Write the int8 graph of an fp32 one; the same input gives the same bytes.

    - Weights have a scale per channel (`per_channel`), as the channels' ranges differ a lot.
    - Weights have 7 bits (`reduce_range`). A CPU without VNNI instructions adds pairs of 8-bit products in 16 bits,
      which 8-bit weights can overflow. Depthwise convolutions use other instructions and keep 8 bits, see `depthwise`.
    - An activation's range is the mean over batches of its least and greatest values (`CalibMovingAverage`), so rare
      outliers do not widen it. Source: ONNX Runtime's documentation, "Quantize ONNX models".

    Args:
        source: the fp32 graph, with an input uint8 `pixels` [n, size, size, 3]; its `labels` are copied.
        target: the file to write.
        pictures: that it is run on, uint8 [n, size, size, 3].

    Raises:
        UnquantisableError: if there is nothing to quantise.
    """
    with tempfile.TemporaryDirectory() as name, _quiet():
        prepared, quantised = Path(name, "prepared.onnx"), Path(name, "int8.onnx")
        # Infers the tensors' shapes, and merges batch norms into the convolutions before them.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        nodes = trunk(model)
        if not nodes:
            raise UnquantisableError("it has no convolutions to quantise")
        quantize_static(
            prepared,
            quantised,
            _Batches(pictures),
            op_types_to_quantize=list(QUANTISED),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True, "TensorQuantOverrides": depthwise(model, nodes)},
        )
        labels = {entry.key: entry.value for entry in onnx.load(source).metadata_props}["labels"]
        with replacing(target) as aside:
            write_graph(onnx.load(quantised), aside, tuple(json.loads(labels)))


def trunk(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes to quantise: all 2-d convolutions but the first `SPARED`, and the `QUANTISED` nodes after
    them.

    Between two quantised nodes values stay integers; converting to floats and back would cost more than it saves.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    # The heads of an ensemble are 1-d convolutions, with weights of 3 dimensions: they stay fp32.
    planar = [node.name for node in model.graph.node if node.op_type == "Conv" and ranks.get(node.input[1]) == 4]
    outputs: set[str] = set()  # of the nodes chosen so far; a graph lists its nodes in the order of execution
    names = []
    for node in model.graph.node:
        follows = node.op_type in QUANTISED and not outputs.isdisjoint(node.input)
        if follows or node.name in planar[SPARED:]:
            names.append(node.name)
            outputs.update(node.output)
    return names


def depthwise(model: onnx.ModelProto, nodes: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Settings for the weights of depthwise convolutions: name of the tensor -> 8 bits, for each channel.

    Their products are added in 32 bits, which cannot overflow.
    """
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    eight = {"quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": False, "axis": 0}
    return {
        node.input[1]: [eight] * shapes[node.input[1]][0]
        for node in model.graph.node
        if node.op_type == "Conv" and node.name in nodes and shapes[node.input[1]][1] == 1
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger, to which the quantiser logs every scale that it corrects."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Batches(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime ships no types
    """Feeds pictures to the quantiser, a batch at a time, with a progress bar."""

    def __init__(self, pictures: Pixels) -> None:
        self._batches = self._read(pictures)

    def get_next(self) -> dict[str, Pixels] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(pictures: Pixels) -> Iterator[dict[str, Pixels]]:
        with Progress("int8", len(pictures)) as progress:
            for start in range(0, len(pictures), BATCH):
                batch = pictures[start : start + BATCH]
                yield {PIXELS: batch}
                progress.update(len(batch))
