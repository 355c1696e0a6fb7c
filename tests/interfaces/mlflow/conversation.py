"""Conversations kept as golden files: what a client asks, and the answers that it may rely on from now on.

A file is a list of exchanges: `ask` (method and path below the root), `with` (the message) or `file` (the body as a text),
`status`, `answer`. Ids that the server made stand as `<run 1>`, `<exp 1>`, … in the order of their appearance, what proves an
address as `<proof 1>`, and times of its own as `<time>`.
`INSTAR_RENEW_GOLDEN=1` writes the answers anew; the asking parts are written by hand.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

GOLDEN = Path(__file__).parent / "golden"
OWN_TIMES = ("creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp")
IDS = re.compile(
    r"\b(?:run|exp)_[0-9A-Z]{26}\b|\bm-[0-9a-f]{32}\b|\bupload_[0-9a-f]{32}\b|\buntil=\d+&signature=[0-9a-f]{64}\b"
)
KINDS = {"run": "run", "exp": "exp", "m-": "model", "upload": "upload", "until": "proof"}


class Conversation:
    """One golden file, replayed."""

    def __init__(self, client: TestClient, name: str) -> None:
        self._client = client
        self._file = GOLDEN / f"{name}.json"
        self._names: dict[str, str] = {}  # by the server's id
        self._ids: dict[str, str] = {}  # by the name that stands for it

    def replay(self) -> None:
        """Ask everything again and compare every answer."""
        exchanges = json.loads(self._file.read_text("utf-8"))
        renewed = [self._exchange(exchange) for exchange in exchanges]
        if os.environ.get("INSTAR_RENEW_GOLDEN"):
            text = json.dumps(renewed, indent=1, ensure_ascii=False)
            self._file.write_text(text + "\n", "utf-8")
            return
        for exchange, now in zip(exchanges, renewed, strict=True):
            assert exchange == now

    def _exchange(self, exchange: dict[str, Any]) -> dict[str, Any]:
        method, path = exchange["ask"].split(" ", 1)
        message = self._real(exchange.get("with", {}))
        address = self._real(path if path.startswith("/") else f"/api/2.0/mlflow/{path}")
        if "file" in exchange:
            reply = self._client.request(method, address, content=exchange["file"])
        elif method == "GET":
            reply = self._client.get(address, params=message or None)
        else:
            reply = self._client.request(method, address, json=message)
        answer = reply.json() if reply.headers["content-type"] == "application/json" else reply.text
        return {
            "ask": exchange["ask"],
            **({"file": exchange["file"]} if "file" in exchange else {"with": exchange.get("with", {})}),
            "status": reply.status_code,
            "answer": self._plain(answer),
        }

    def _real(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._real(key): self._real(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._real(item) for item in value]
        if isinstance(value, str):
            for name, id in self._ids.items():
                value = value.replace(name, id)
        return value

    def _plain(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self._plain(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if key in OWN_TIMES:
            assert isinstance(value, int)
            return "<time>"
        if key == "next_page_token":
            return self._named("token", value)
        return IDS.sub(lambda match: self._named(_kind(match[0]), match[0]), value) if isinstance(value, str) else value

    def _named(self, kind: str, id: str) -> str:
        if id not in self._names:
            name = f"<{kind} {1 + sum(known.startswith(f'<{kind} ') for known in self._ids)}>"
            self._names[id], self._ids[name] = name, id
        return self._names[id]


def _kind(id: str) -> str:
    return next(name for prefix, name in KINDS.items() if id.startswith(prefix))
