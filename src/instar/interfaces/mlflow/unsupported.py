"""What of MLflow's protocol is refused, and in which words, whenever a client asks for it."""

from __future__ import annotations

import re

# By the first word of the path below the root; the first that fits decides.
REFUSED: dict[str, str] = {
    "traces": "Traces are not kept",
    "unified-traces": "Traces are not kept",
    "get-online-trace-details": "Traces are not kept",
    "get-trace-artifact": "Traces are not kept",
    "v1/traces": "Traces are not kept",
    "scorers": "Scorers of generative models are not kept",
    "scorer": "Scorers of generative models are not kept",
    "genai": "Scorers of generative models are not kept",
    "issues": "Issues of traces are not kept",
    "label-schemas": "Labelling of traces is not offered",
    "review-queues": "Labelling of traces is not offered",
    "datasets": "Evaluation data sets of generative models are not kept; data sets of runs are",
    "prompt-optimization": "Optimising prompts is not offered",
    "gateway": "The gateway to language models is not offered",
    "gateway-proxy": "The gateway to language models is not offered",
    "mcp-servers": "The registry of MCP servers is not offered",
    "jobs": "Jobs of MLflow's server are not offered",
    "demo": "MLflow's demonstration is not offered; see instar demo",
    "workspaces": "A workspace is a project: its first record makes it, and it is neither changed nor deleted here",
    "users": "Users of MLflow's own are not kept",
    "graphql": "MLflow's own console is not served; see /console",
}
_ADDRESS = re.compile(
    r"(?:/projects/[^/]+)?/(?:(?:api|ajax-api)/[0-9.]+/?mlflow(?:-artifacts)?/)?(?P<path>[^?]*)\Z", re.DOTALL
)


def why(address: str) -> str:
    """One sentence: why this address is not answered."""
    found = _ADDRESS.match(address)
    path = found["path"] if found else address
    for group, reason in REFUSED.items():
        if path == group or path.startswith(group + "/"):
            return f"{reason} (docs/mlflow.md lists what is): {address}"
    return f"This server has no such address (docs/mlflow.md lists what it has): {address}"
