"""KServe's Python server with two workers: `run_kserve.py FOLDER PORT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from onnx_session import session


class Answers(Model):
    """The ONNX model."""

    def __init__(self, file: Path) -> None:
        super().__init__("model")
        self.file = file
        self.session: Any = None  # a session cannot be handed to the workers, so each makes its own
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        if self.session is None:
            self.session = session(self.file)
        rows = payload.inputs[0].as_numpy().astype(np.float32)
        label, probabilities = self.session.run(None, {"input": rows})
        outputs = []
        for name, datatype, values in (("label", "INT64", label), ("probabilities", "FP32", probabilities)):
            output = InferOutput(name=name, shape=list(values.shape), datatype=datatype)
            output.set_data_from_numpy(values, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id or "", model_name="model", infer_outputs=outputs)


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    ModelServer(http_port=port, workers=2, enable_grpc=False, access_log_format=None).start(
        [Answers(folder / "model.onnx")]
    )
