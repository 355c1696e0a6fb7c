"""The mapping between MLflow's protocol and our records is a format that we keep: conversations, word for word."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from .conversation import GOLDEN, Conversation


@pytest.mark.parametrize("name", sorted(file.stem for file in GOLDEN.glob("*.json")))
def test_the_conversation_is_the_same(http: TestClient, name: str) -> None:
    Conversation(http, name).replay()
