"""A trained network -> one ONNX graph, checked against the network."""

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
from numpy.typing import NDArray
from torch import nn

from stages.inference.decoding import Pixels
from stages.inference.runtime import session
from stages.workspace.errors import ModelError

PIXELS, FEATURES, SCORES = "pixels", "features", "scores"
"""Names of a graph's inputs and outputs."""
TOLERANCE = 1e-3
"""Most that a score of the graph may differ from the network's."""


def export(
    network: nn.Module,
    path: Path,
    shape: tuple[int, ...],
    names: tuple[str, str] = (PIXELS, SCORES),
    labels: tuple[str, ...] = (),
) -> None:
    """Write a network as one self-contained ONNX file; the same network gives the same bytes.

    Args:
        network: [n, *shape], uint8 if the input is `PIXELS`, else float32 -> float32 [n, outputs].
        path: the file to write.
        shape: of one input; of a picture [size, size, 3].
        names: of the graph's input and output.
        labels: names of the output's columns, kept in the file.
    """
    example = torch.zeros((2, *shape), dtype=torch.uint8 if names[0] == PIXELS else torch.float32)
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)  # each rewriting of the graph is a line
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about itself
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
    write(model, path, labels)


def chained(graphs: Sequence[Path], path: Path, labels: tuple[str, ...]) -> None:
    """Write one file of one graph, or of two: pixels -> features, features -> scores.

    So the first of two is not exported again for each second one.
    """
    model = onnx.load(graphs[0])
    for head in graphs[1:]:
        added = onnx.compose.add_prefix(onnx.load(head), "head/", rename_inputs=False, rename_outputs=False)
        model = onnx.compose.merge_models(model, added, io_map=[(FEATURES, FEATURES)])
    write(model, path, labels)


def write(model: onnx.ModelProto, path: Path, labels: tuple[str, ...]) -> None:
    """Write a graph; `labels` are all that is kept of its notes. The same graph gives the same bytes."""
    used = {"", *(node.domain for node in model.graph.node)}
    # Joining names an operator set twice, and ONNX Runtime's optimiser names all that it knows.
    opsets = {opset.domain: opset.version for opset in model.opset_import if opset.domain in used}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*each) for each in opsets.items())
    onnx.helper.set_model_props(model, {"labels": json.dumps(labels, ensure_ascii=False)})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with the paths of this machine."""
    del model.metadata_props[:]
    for holder in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""


def check_parity(network: nn.Module, path: Path, pictures: Pixels) -> NDArray[np.float32]:
    """Compare a file's scores of these pictures, uint8 [n, size, size, 3], with its network's, and return them.

    Raises:
        ModelError: if one differs by more than `TOLERANCE`.
    """
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(pictures)).numpy()
    found: NDArray[np.float32] = session(path, 1).run(None, {PIXELS: pictures})[0]
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the exported graph's scores differ from the network's by {difference:.2g}, over {TOLERANCE:g}; report it "
            "with the versions of torch and onnxruntime"
        )
    return found
