"""Loads ONNX graphs to run on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from stages.workspace.errors import ModelError


def session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph. The session is safe to share between threads; each run uses `threads` CPU threads.

    Raises:
        ModelError: if the file is missing or is not a valid graph.
    """
    if not model.is_file():
        raise ModelError(f"no model {model}; make one with `dvc repro train`, or get it with `dvc pull`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads sleep instead of spinning, which would keep cores busy between two pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen classes that have no common parent of their own
        raise ModelError(f"{model} is no ONNX model that can be loaded; restore it with `dvc checkout`") from error
