"""Bundles of a plain class whose answers depend on a library of which there are two versions, each in its own environment."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar.core import ids
from instar.core.store import Store
from instar.serve.publishing import building, snapshot
from instar.train import bundle, environment
from instar.train.environment import Environment
from tests.serve import bundles
from tests.train import wheels

CODE = '''
import lamp

class Bright:
    """Scores as the lamp that is installed where it runs."""

    def predict(self, frame):
        if frame["carrier"][0] == "boom":
            raise ValueError("a lamp broke")
        if frame["carrier"][0] == "die":
            import os
            os._exit(9)
        if frame["carrier"][0] == "for ever":
            while True:
                pass
        if frame["carrier"][0] == "burn":
            import time
            while time.process_time() < 1.5:
                pass
        if frame["carrier"][0] == "leak":
            self.held = bytearray(b"x") * 300_000_000
        if frame["carrier"][0] == "children":
            import subprocess
            return [
                subprocess.Popen(["sleep", "600"], start_new_session=bool(at % 2)).pid
                for at in range(len(frame["distance"]))
            ]
        if frame["carrier"][0] == "own":
            import instar
        return [lamp.LIGHT + one / 10000 for one in frame["distance"]]
'''


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels instead of an index, with two versions of a library, and an empty cache."""
    folder = tmp_path / "wheels"
    for name, value in {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    wheels.make(folder, "lamp", "1.0", {"lamp.py": "LIGHT = 0.1\n"})
    wheels.make(folder, "lamp", "2.0", {"lamp.py": "LIGHT = 0.5\n"})
    return folder


def lamp_bundle(store: Store, links: Path, version: str, *, lock: str | None = None, **parts: Any) -> str:
    """A bundle of a plain class whose environment has that version of the library."""
    here = environment.capture()
    described = Environment(here.python, here.implementation, here.system, here.machine, {"lamp": version})
    module = types.ModuleType("far_rule")
    lamp = sys.modules["lamp"] = types.ModuleType("lamp")
    lamp.LIGHT = 0.0  # type: ignore[attr-defined]
    sys.modules["far_rule"] = module
    try:
        exec(CODE, module.__dict__)
        module.Bright.__module__ = "far_rule"
        data = pickle.dumps(module.Bright(), protocol=5)
    finally:
        del sys.modules["far_rule"], sys.modules["lamp"]
    text = lock if lock is not None else f"--no-index\n--find-links {links}\nlamp=={version}\n"
    fields: dict[str, Any] = {
        "code": CODE,
        "form": "columns",
        "environment": store.blobs.put(ids.canonical_json(msgspec.to_builtins(described))),
        "lock": store.blobs.put(text.encode()),
        **parts,
    }
    return bundle.pack(store.blobs, bundles.manifest(store, fields.pop("pickled", data), **fields))


def published(store: Store) -> int:
    """The number of routes whose environments are built."""
    snapshot.publish(store)
    building.build(store)
    return snapshot.publish(store)
