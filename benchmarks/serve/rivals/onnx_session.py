"""The ONNX model inside each rival's process, with one thread a session: on a single row, threads only wait for each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def session(file: Path) -> Any:
    """A session on `model.onnx`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
