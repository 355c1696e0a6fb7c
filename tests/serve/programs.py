"""Folders of models that a small Python program serves, for tests."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from instar.core.store import Store
from instar.serve.traffic.routes import bundle_folder
from instar.train import bundle
from instar.train.command_bundle import pack_command

COLUMNS = """
[[inputs]]
name = "distance"
datatype = "FP64"
nullable = true

[[inputs]]
name = "carrier"
datatype = "BYTES"
"""


def folder(place: Path, fault: str = "", more: str = "", inputs: str = COLUMNS) -> Path:
    """A folder with `model.toml` and the program.

    Args:
        more: Lines of `model.toml` before the inputs.
    """
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("command_server.py"), place / "serve.py")
    command = [sys.executable, "-I", "serve.py", *([fault] if fault else [])]
    (place / "model.toml").write_text(f"command = {json.dumps(command)}\n{more}\n{inputs}")
    return place


def unpacked(store: Store, place: Path, name: str = "delay") -> Path:
    """The folder's bundle, packed and unpacked."""
    digest = pack_command(store, place, name=name)
    made = bundle_folder(store.folder, digest)
    made.parent.mkdir(parents=True, exist_ok=True)
    bundle.unpack(store.blobs, digest, made)
    return made
