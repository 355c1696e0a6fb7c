"""Ray Serve with one replica and one proxy: `run_ray.py FOLDER PORT`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
from onnx_session import session
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=128)
class Answers:
    """The ONNX model."""

    def __init__(self, file: str) -> None:
        self.session = session(Path(file))

    async def __call__(self, request: Request) -> dict[str, Any]:
        asked = (await request.json())["inputs"][0]
        rows = np.array(asked["data"], dtype=np.float32).reshape(asked["shape"])
        label, probabilities = self.session.run(None, {"input": rows})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Answers.bind(str(Path(sys.argv[1]) / "model.onnx")))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
