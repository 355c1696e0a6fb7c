"""A folder with a class of Python becomes a bundle: what it needs is locked, and what is missing is said before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from instar.core.errors import BadInput, Blocked
from instar.core.store import Store
from instar.train import bundle, own_environment
from instar.train.class_bundle import pack_brought, pack_class
from tests.train import wheels
from tests.train.test_command_bundle import COLUMN, TENSORS
from tests.train.test_folder_lock import links as links

ENTRY = 'entry = "model:Model"\n'
CODE = "raise SystemExit('it ran')\nclass Model:\n    def predict(self, rows):\n        return [0.0]\n"


def folder(place: Path, text: str = ENTRY + COLUMN, code: str = CODE, **files: str) -> Path:
    place.mkdir(exist_ok=True)
    for name, body in {"model.toml": text, "model.py": code, **files}.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(body)
    return place


def test_a_folder_is_a_bundle_with_all_its_files(store: Store, tmp_path: Path) -> None:
    place = folder(tmp_path / "m", ENTRY + "threshold = 0.25\n" + COLUMN, **{"data/weights.txt": "1 2 3"})
    digest = pack_brought(store, place, name="delay")
    assert pack_class(store, place, name="delay") == digest
    manifest = bundle.unpack(store.blobs, digest, tmp_path / "made")
    assert manifest.plain is not None
    assert (manifest.kind, manifest.form, manifest.lock, manifest.threshold) == ("class", "columns", None, 0.25)
    assert (manifest.plain.entry, manifest.plain.decides) == ("model:Model", True)
    assert (tmp_path / "made" / "class" / "data" / "weights.txt").read_text() == "1 2 3"
    assert bundle.load_manifest(store.blobs, digest) == manifest
    (place / "data" / "weights.txt").write_text("1 2 4")
    changed = bundle.load_manifest(store.blobs, pack_class(store, place, name="delay"))
    assert bundle.content_digest(changed) != bundle.content_digest(manifest)


def test_requirements_become_a_lock_and_a_lock_stays_as_it_is(store: Store, tmp_path: Path, links: Path) -> None:
    place = folder(tmp_path / "m", **{"requirements.txt": "lamp\n"})
    manifest = bundle.load_manifest(store.blobs, pack_class(store, place, name="delay"))
    assert manifest.lock is not None
    assert b"lamp==1.0 " in store.blobs.get(manifest.lock)
    assert own_environment.name_of(store, manifest).startswith("b3:")
    line = wheels.make(links, "lamp", "0.9", {"lamp.py": ""})
    for name in ("requirements.txt", "requirements.lock"):
        (place / name).write_text(f"# by hand\n{line}")
        found = bundle.load_manifest(store.blobs, pack_class(store, place, name="delay"))
        assert found.lock is not None
        assert store.blobs.get(found.lock).decode() == f"# by hand\n{line}"
        assert own_environment.name_of(store, found) != own_environment.name_of(store, manifest)
    (place / "requirements.lock").unlink()
    (place / "requirements.txt").write_text("dusk==7\n")
    with pytest.raises(Blocked, match="dusk==7"):
        pack_class(store, place, name="delay")


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ('entry = "model"\n' + COLUMN, CODE, "names no class"),
        ('entry = "other:Model"\n' + COLUMN, CODE, r"module other, which is not in the folder.*other\.py"),
        ('entry = "model:Other"\n' + COLUMN, CODE, r"model\.py has no class Other.*Model"),
        (ENTRY + COLUMN, "class Model:\n    def score(self): ...\n", r"class Model has no method predict.*score"),
        (ENTRY + TENSORS, CODE, r"class Model has no method infer.*def infer\(self, inputs\)"),
        (ENTRY + COLUMN, "class Model\n", r"model\.py cannot be read as Python"),
        (ENTRY + 'command = ["x"]\n' + COLUMN, CODE, "a command and a class"),
        (ENTRY + "start_seconds = 5.0\n" + COLUMN, CODE, "start_seconds is for a command"),
        (ENTRY + 'python = "two"\n' + COLUMN, CODE, "python is no version"),
        (ENTRY + 'frame = "excel"\n' + COLUMN, CODE, "frame"),
        (ENTRY, CODE, "inputs"),
        (ENTRY + "resources = { threads = 0 }\n" + COLUMN, CODE, "threads are out of range"),
        (ENTRY + 'resources = { memory = "lots" }\n' + COLUMN, CODE, "memory is no size"),
        (ENTRY + 'resources = { memory = "1KiB" }\n' + COLUMN, CODE, "memory is no size"),
        (ENTRY + "resources = { gpus = 1 }\n" + COLUMN, CODE, "unknown field `gpus`"),
    ],
)
def test_what_is_missing_is_named(store: Store, tmp_path: Path, text: str, code: str, why: str) -> None:
    with pytest.raises(BadInput, match=f"(?s){why}"):
        pack_brought(store, folder(tmp_path / "m", text, code), name="delay")


@pytest.mark.parametrize(
    "code",
    ["from base import Model\n", "from base import *\n", "Model = make()\n", "class Model(Base):\n    pass\n"],
)
def test_what_cannot_be_known_from_the_text_is_left_to_the_trial(store: Store, tmp_path: Path, code: str) -> None:
    assert pack_brought(store, folder(tmp_path / "m", code=code), name="delay")
