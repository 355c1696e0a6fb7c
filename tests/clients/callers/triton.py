"""Asks a server through tritonclient, over HTTP and gRPC: `triton.py HTTP_ADDRESS GRPC_ADDRESS`; prints what it got as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

X = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
WORDS = np.array([b"one", b"zwei"], dtype=object)


def inputs(library: Any, **binary: Any) -> list[Any]:
    """The two inputs."""
    made = [library.InferInput("x", [2, 3], "FP32"), library.InferInput("words", [2], "BYTES")]
    made[0].set_data_from_numpy(X, **binary)
    made[1].set_data_from_numpy(WORDS, **binary)
    return made


def told(answer: Any) -> dict[str, Any]:
    """Outputs as lists."""
    found = {}
    for name in ("score", "label"):
        values = answer.as_numpy(name)
        if values is not None:
            found[name] = [v.decode() if isinstance(v, bytes) else v for v in values.ravel().tolist()]
    return found


def ask(library: Any, client: Any) -> dict[str, Any]:
    """Everything that both protocols have."""
    wanted = [library.InferRequestedOutput("label")]
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("words"),
        "version ready": client.is_model_ready("words", "1"),
        "infer": told(client.infer("words", inputs(library), request_id="mine")),
        "version": told(client.infer("words", inputs(library), model_version="1")),
        "wanted": told(client.infer("words", inputs(library), outputs=wanted)),
    }
    found["timed"] = told(client.infer("words", inputs(library), timeout=30_000_000))
    refused = {
        "refused": lambda: client.infer("nothing", inputs(library)),
        "missing": lambda: client.infer("words", inputs(library)[:1]),
        "late": lambda: client.infer("words", inputs(library), timeout=1),
        "sequence": lambda: client.infer("words", inputs(library), sequence_id=7, sequence_start=True),
        "priority": lambda: client.infer("words", inputs(library), priority=1),
        "classes": lambda: client.infer("words", inputs(library), outputs=[classes(library)]),
        "load": lambda: client.load_model("words"),
        "unload": lambda: client.unload_model("words"),
        "shared": lambda: client.infer("words", [shared(library), inputs(library)[1]]),
    }
    for name, asking in refused.items():
        try:
            asking()
        except Exception as problem:
            found[name] = str(problem)
    return found


def classes(library: Any) -> Any:
    """An output as classes."""
    return library.InferRequestedOutput("score", class_count=2)


def shared(library: Any) -> Any:
    """The first input, in memory that the server should share."""
    one = library.InferInput("x", [2, 3], "FP32")
    one.set_shared_memory("region", 24)
    return one


def packed(client: Any) -> dict[str, Any]:
    """Both ways packed over HTTP, with many rows, so that the answer is worth it."""
    rows = 4000
    many = [over_http.InferInput("x", [rows, 3], "FP32"), over_http.InferInput("words", [rows], "BYTES")]
    many[0].set_data_from_numpy(np.tile(X[:1], (rows, 1)))
    many[1].set_data_from_numpy(np.array([b"one"] * rows, dtype=object))
    found = {}
    for algorithm in ("gzip", "deflate"):
        answer = client.infer(
            "words", many, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )
        found[algorithm] = [
            set(values) == {value} for values, value in zip(told(answer).values(), (6.0, "ONE"), strict=True)
        ]
    return found


def main() -> None:
    """Both protocols."""
    http_client = over_http.InferenceServerClient(sys.argv[1])
    grpc_client = over_grpc.InferenceServerClient(sys.argv[2])
    found = {"http": ask(over_http, http_client), "grpc": ask(over_grpc, grpc_client)}
    # Over HTTP values can also stand in the JSON, both ways.
    plain = over_http.InferRequestedOutput("score", binary_data=False)
    answer = http_client.infer("words", inputs(over_http, binary_data=False), outputs=[plain])
    found["http"]["json"] = told(answer)
    futures = [http_client.async_infer("words", inputs(over_http)) for _ in range(8)]
    found["http"]["async"] = [told(future.get_result()) for future in futures]
    found["http"]["metadata"] = http_client.get_model_metadata("words")
    metadata = grpc_client.get_model_metadata("words")
    found["grpc"]["metadata"] = [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs]
    index = grpc_client.get_model_repository_index().models
    found["grpc"]["index"] = [{"name": one.name, "version": one.version, "state": one.state} for one in index]
    index = http_client.get_model_repository_index()
    found["http"]["index"] = [{name: one[name] for name in ("name", "version", "state")} for one in index]
    found["http"]["packed"] = packed(http_client)
    packing = grpc_client.infer("words", inputs(over_grpc), compression_algorithm="gzip")
    found["grpc"]["packed"] = told(packing)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
