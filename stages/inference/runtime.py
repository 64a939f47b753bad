"""ONNX graphs, loaded to run on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from stages.workspace.errors import ModelError


def session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """A loaded graph. Safe to share between threads; each run takes `threads` of its own.

    Raises:
        ModelError: if there is no such file, or it cannot be loaded.
    """
    if not model.is_file():
        raise ModelError(f"no model {model}; make one with `dvc repro train`, or get it with `dvc pull`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the core to others
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen classes of its own, with RuntimeError their only parent
        raise ModelError(f"{model} is no ONNX model that can be loaded; get it anew with `dvc checkout`") from error
