from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instar.core.errors import Damaged, InstarError
from instar.core.store import Store
from instar.serve.traffic.routes import bundle_folder
from instar.serve.worker.loading import load
from instar.train import bundle
from tests.serve import bundles


def unpacked(store: Store, digest: str) -> Path:
    folder = bundle_folder(store.folder, digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    bundle.unpack(store.blobs, digest, folder)
    return folder


def test_a_native_form_scores_with_its_own_code(store: Store) -> None:
    model = load(unpacked(store, bundles.rule(store)))
    assert list(model.score({"distance": [1000.0, 2000.0], "carrier": ["UA", None]})) == [0.1, 0.2]


@pytest.mark.parametrize("file", [bundle.MANIFEST_FILE, bundle.NATIVE_FILE, bundle.CODE_FILE])
def test_a_swapped_file_is_refused(store: Store, file: str) -> None:
    folder = unpacked(store, bundles.rule(store))
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data.replace(b"delay", b"other") if file == bundle.MANIFEST_FILE else data + b" ")
    with pytest.raises(Damaged, match=file):
        load(folder)


@pytest.mark.parametrize(
    ("file", "runtime", "other"), [("onnx", "onnxruntime", "treelite"), ("none", "", "onnxruntime")]
)
def test_the_runtimes_of_bundles_that_are_there_are_imported_before_a_call(
    tmp_path: Path, file: str, runtime: str, other: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / f"portable.{file}").write_bytes(b"")
    asked = (
        "import sys; from pathlib import Path; from instar.serve.worker.loading import import_runtimes;"
        "import_runtimes(Path(sys.argv[1])); print(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", asked, str(tmp_path)], capture_output=True, text=True, check=True)
    modules = said.stdout.split()
    assert other not in modules
    assert not runtime or runtime in modules


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_would_run_a_command_never_runs(store: Store, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    made = bundles.manifest(store, pickle.dumps(Bomb(mark)))
    with pytest.raises(InstarError, match="system"):
        load(unpacked(store, bundle.pack(store.blobs, made)))
    assert not mark.exists()
