"""Triton through nvidia-pytriton, with dynamic batching: `run_triton.py FOLDER PORT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx_session import session
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    model = session(Path(sys.argv[1]) / "model.onnx")
    port = int(sys.argv[2])

    @batch
    def infer(input: Any) -> dict[str, Any]:
        label, probabilities = model.run(None, {"input": input})
        return {"label": label.reshape(-1, 1), "probabilities": probabilities}

    with Triton(
        config=TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, log_verbose=0)
    ) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[Tensor(name="input", dtype=np.float32, shape=(30,))],
            outputs=[
                Tensor(name="label", dtype=np.int64, shape=(1,)),
                Tensor(name="probabilities", dtype=np.float32, shape=(2,)),
            ],
            config=ModelConfig(max_batch_size=128, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
