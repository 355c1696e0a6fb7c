"""Every address that MLflow's own server answers is answered here, or refused with a reason that a user can read."""

from __future__ import annotations

import re

import httpx2
import pytest

from tests.journeys.driving import Server


@pytest.mark.timeout(120)
def test_no_address_of_mlflow_is_forgotten(server: Server) -> None:
    from mlflow.server import handlers  # warns of its own libraries when it is imported

    forgotten = []
    with httpx2.Client(base_url=server.url) as client:
        for path, _, methods in handlers.get_endpoints():
            if "2.0mlflow" in path:  # a slip of MLflow's own: the address with its slash is listed, too
                continue
            for method in methods:
                body = {} if method == "GET" else {"json": {}}
                reply = client.request(method, re.sub(r"<[^>]+>", "x", path), **body)
                wordless = reply.status_code != 200 and '"error_code"' not in reply.text
                if reply.status_code == 500 or wordless or "no such address" in reply.text:
                    forgotten.append((method, path, reply.status_code, reply.text[:100]))
    assert forgotten == []
