"""What a server does beside answering goes on after a mistake in it, and ends when the server does."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from instar.app import App
from instar.core.store import Store
from instar.interfaces import background


def test_a_mistake_is_logged_and_the_work_is_begun_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    stop, calls = threading.Event(), []

    def work(app: App, stopped: threading.Event) -> None:
        calls.append(app)
        if len(calls) < 3:
            raise RuntimeError("a mistake of ours")

    background._again("controllers", work, App(store, None), stop, pause_seconds=0)
    assert len(calls) == 3
    assert caplog.text.count("broke off") == 2


def test_it_ends_when_the_server_does(store: Store) -> None:
    stop = threading.Event()
    stop.set()
    calls: list[Any] = []

    def work(app: App, stopped: threading.Event) -> None:
        calls.append(app)
        raise RuntimeError("each time")

    background._again("webhooks", work, App(store, None), stop)
    assert len(calls) == 1
