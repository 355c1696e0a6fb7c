"""Sessions of ONNX Runtime for graphs that answer calls: their settings in one place, whenever a graph is loaded.

`INSTAR_ONNX_THREADS` sets the threads of a session; by default one: a worker has many models and a call few rows, so threads
only wait for each other and for the cores. Memory of past calls is given back at the end of each instead of being kept a
graph: of a thousand loaded models few are called at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from instar.core.errors import BadInput, Damaged
from instar.core.silence import keep_silence

THREADS = "INSTAR_ONNX_THREADS"
MOST_THREADS = 256


def threads() -> int:
    """Threads of a session, from the environment.

    Raises:
        BadInput: The setting is no number of threads.
    """
    text = os.environ.get(THREADS, "").strip() or "1"
    if not text.isdigit() or not 1 <= int(text) <= MOST_THREADS:
        raise BadInput("that setting cannot be read", subject=THREADS, found=repr(text), asked=f"1 to {MOST_THREADS}")
    return int(text)


def open_session(graph: bytes | Path) -> Any:
    """A session on the processor, with a graph's bytes or its file (which may have data files beside it).

    Raises:
        Damaged: The graph cannot be read, or asks for operators that the runtime has not.
        BadInput: The number of threads cannot be read.
    """
    keep_silence()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    given = str(graph) if isinstance(graph, Path) else graph
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises bare classes of its own for each kind of damage
        raise Damaged("its graph cannot be read", found=" ".join(str(error).split())[:500]) from error
