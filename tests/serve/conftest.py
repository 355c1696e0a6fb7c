"""A real server over fake models, for tests that talk to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from instar.serve.log.segments import alive_boots
from instar.serve.root.process import ServerTree
from instar.serve.traffic.routes import read_ack

ROOT = Path(__file__).parents[2]


def start(folder: Path, **options: Any) -> ServerTree:
    """A server whose workers load the fakes."""
    options = {"control": False, "loader": "tests.serve.fakes:load", **options}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PYTHONPATH": path, **options.pop("environment", {})}
    return ServerTree.start(folder, environment=environment, **options)


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true result of `what`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def acknowledged(folder: Path, number: int) -> Any:
    """Wait until the gateways have spoken on a snapshot."""

    def look() -> Any:
        acks = [read_ack(folder, boot) for boot in alive_boots(folder / "calls")]
        return acks if acks and all(ack is not None and ack.number >= number for ack in acks) else None

    return wait_for(look)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve") / ".instar"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerTree]:
    """Endpoint `delay`: champion 1, shadow 3 in a process of its own."""
    from instar.serve.traffic.policy import Shadow
    from tests.serve import fakes

    versions = [fakes.version(folder, 1, bias=0.1), fakes.version(folder, 3, bias=0.3, native=True)]
    number = fakes.route(folder, versions, champion=1, shadows=[Shadow(3, "rule")])
    with start(folder) as running:
        acknowledged(folder, number)
        yield running
