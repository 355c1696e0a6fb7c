"""Asks a server through KServe's clients, over HTTP and gRPC: `kserve_client.py URL GRPC_ADDRESS`; prints what it got as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request(binary: bool) -> InferRequest:
    """One row for the endpoint `words`."""
    x = InferInput("x", [1, 3], "FP32")
    x.set_data_from_numpy(np.array([[1, 2, 3]], dtype=np.float32), binary_data=binary)
    words = InferInput("words", [1], "BYTES")
    words.set_data_from_numpy(np.array([b"one"], dtype=object), binary_data=binary)
    return InferRequest(model_name="words", infer_inputs=[x, words], request_id="mine")


def told(answer: Any) -> dict[str, Any]:
    """Outputs as lists."""
    found = {}
    for one in answer.outputs:
        values = one.as_numpy().ravel().tolist()
        found[one.name] = [v.decode() if isinstance(v, bytes) else v for v in values]
    return found


async def main() -> None:
    """Both protocols."""
    rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    found: dict[str, Any] = {
        "live": await rest.is_server_live(sys.argv[1]),
        "ready": await rest.is_server_ready(sys.argv[1]),
        "model ready": await rest.is_model_ready(sys.argv[1], "words"),
        "json": told(await rest.infer(sys.argv[1], request(False), model_name="words")),
        "binary": told(await rest.infer(sys.argv[1], request(True), model_name="words")),
    }
    remote = InferenceGRPCClient(sys.argv[2], retries=0)
    found["grpc"] = told(await remote.infer(request(True)))
    found["grpc ready"] = await remote.is_server_ready(), await remote.is_model_ready("words")
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
