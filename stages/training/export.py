"""A trained network -> one ONNX file, checked against the network.

The same network always gives the same bytes, so that DVC sees a change only where there is one.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import torch
from torch import nn

from stages.inference.decoding import Pixels
from stages.inference.runtime import session
from stages.workspace.errors import ModelError

PIXELS, FEATURES, SCORES = "pixels", "features", "scores"
"""Names of graph inputs and outputs."""
TOLERANCE = 1e-3
"""Largest allowed difference between a score of the graph and of the network: float32 sums in another order."""


def export(network: nn.Module, path: Path, shape: tuple[int, ...], names: tuple[str, str] = (PIXELS, SCORES)) -> None:
    """Write a network as a self-contained ONNX file.

    Args:
        network: takes [n, *shape], uint8 if the input is `PIXELS` and else float32; returns float32 [n, outputs].
        path: the file to write.
        shape: of one input; of a picture [size, size, 3].
        names: of the graph's input and output.
    """
    # The exporter traces the network with an example. Of two inputs, as a batch of 1 would become a constant.
    example = torch.zeros((2, *shape), dtype=torch.uint8 if names[0] == PIXELS else torch.float32)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they log each optimisation of the graph
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations within the exporter
        program = torch.onnx.export(
            network.eval(),
            (example,),
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101 (None is what the older exporter returns)
    model = program.model_proto
    _strip(model)
    write_graph(model, path, ())


def chain(graphs: Sequence[Path], path: Path, labels: tuple[str, ...]) -> None:
    """Write one model from one graph, or from two: pixels -> features and features -> scores.

    So the stem, which is slow to export, is exported once for all heads that are trained on it.

    Args:
        graphs: files from `export`.
        path: the file to write.
        labels: names of the scores' columns, which are stored in the file.
    """
    model = onnx.load(graphs[0])
    for file in graphs[1:]:
        # The prefix keeps the names of nodes and weights in the two graphs apart.
        head = onnx.compose.add_prefix(onnx.load(file), "head/", rename_inputs=False, rename_outputs=False)
        model = onnx.compose.merge_models(model, head, io_map=[(FEATURES, FEATURES)])
    write_graph(model, path, labels)


def write_graph(model: onnx.ModelProto, path: Path, labels: tuple[str, ...]) -> None:
    """Write a graph, with `labels` as its only metadata."""
    # Merging lists operator sets twice, and ONNX Runtime's optimiser lists all that it knows.
    used = {"", *(node.domain for node in model.graph.node)}
    opsets = {opset.domain: opset.version for opset in model.opset_import if opset.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in opsets.items())
    onnx.helper.set_model_props(model, {"labels": json.dumps(labels, ensure_ascii=False)})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: stack traces with this machine's paths."""
    del model.metadata_props[:]
    for holder in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""


def check_parity(network: nn.Module, path: Path, pictures: Pixels) -> None:
    """Compare a graph's scores with its network's.

    Args:
        network: as it was exported.
        path: the ONNX file.
        pictures: uint8 [n, size, size, 3].

    Raises:
        ModelError: if a score differs by more than `TOLERANCE`.
    """
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(pictures)).numpy()
    scores = session(path, 1).run(None, {PIXELS: pictures})[0]
    difference = float(np.abs(scores - expected).max())
    if not difference <= TOLERANCE:  # also true for NaN
        raise ModelError(
            f"the exported graph's scores differ from the network's by {difference:.2g}, over {TOLERANCE:g}; report it "
            "with the versions of torch and onnxruntime"
        )
