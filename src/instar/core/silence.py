"""Libraries that report to their makers are told not to, before they are imported by what Instar starts.

ONNX Runtime sends names and digests of the graphs that it loads, MLflow which of its functions are called. What a company's
models are called is nobody else's business, and a server in a closed network should not try. Who wants to report sets the
variable to something else.
"""

from __future__ import annotations

import os

WORDS = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def keep_silence() -> None:
    """Set the variables, for this process and those that it starts."""
    for name, word in WORDS.items():
        os.environ.setdefault(name, word)
