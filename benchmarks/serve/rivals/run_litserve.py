"""LitServe with two workers: `run_litserve.py FOLDER PORT`."""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Request  # the annotation by which LitServe hands over the body as it came
from onnx_session import session


class Answers(litserve.LitAPI):
    """The ONNX model."""

    def setup(self, device: str) -> None:
        self.session = session(Path(sys.argv[1]) / "model.onnx")

    def decode_request(self, request: Request) -> Any:
        return np.array(request["inputs"][0]["data"], dtype=np.float32).reshape(request["inputs"][0]["shape"])

    def predict(self, rows: Any) -> Any:
        return self.session.run(None, {"input": rows})

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"label": output[0].tolist(), "probabilities": output[1].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Answers(), accelerator="cpu", workers_per_device=2, track_requests=False)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
