from __future__ import annotations

from pathlib import Path

import pytest

from instar.core.errors import BadInput, StoreTooNew
from instar.core.limits import Limits
from instar.core.store import Store
from instar.train import bundle
from instar.train.command_bundle import pack_command, read_folder

COLUMN = '[[inputs]]\nname = "x"\ndatatype = "FP64"\n'
TENSORS = '[[inputs]]\nname = "x"\ndatatype = "FP32"\nshape = [-1, 3]\n[[outputs]]\nname = "y"\ndatatype = "FP32"\nshape = [-1]\n'


def folder(place: Path, text: str) -> Path:
    place.mkdir(exist_ok=True)
    (place / "model.toml").write_text(text)
    return place


def test_a_folder_is_a_bundle_with_all_its_files(store: Store, tmp_path: Path) -> None:
    place = folder(tmp_path / "m", 'command = ["./serve"]\nthreshold = 0.25\nmodel = "m"\n' + COLUMN)
    (place / "parts").mkdir()
    (place / "parts" / "weights.txt").write_text("1 2 3")
    (place / "serve").write_text("#!/bin/sh\n")
    (place / "serve").chmod(0o755)
    (place / ".secret").write_text("not of the model")
    (place / "__pycache__").mkdir()
    (place / "__pycache__" / "x.pyc").write_text("")
    digest = pack_command(store, place, name="delay")
    assert pack_command(store, place, name="delay") == digest
    manifest = bundle.unpack(store.blobs, digest, tmp_path / "made")
    assert manifest.command is not None
    assert sorted(manifest.command.files) == ["model.toml", "parts/weights.txt", "serve"]
    assert (manifest.threshold, manifest.command.decides, manifest.tensors) == (0.25, True, None)
    assert (tmp_path / "made" / "command" / "parts" / "weights.txt").read_text() == "1 2 3"
    assert (tmp_path / "made" / "command" / "serve").stat().st_mode & 0o111
    assert not (tmp_path / "made" / "command" / "model.toml").stat().st_mode & 0o111
    (place / "parts" / "weights.txt").write_text("1 2 4")
    changed = bundle.load_manifest(store.blobs, pack_command(store, place, name="delay"))
    assert bundle.content_digest(changed) != bundle.content_digest(manifest)


def test_programs_from_before_say_that_it_is_too_new(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path / "m", 'command = ["serve"]\n' + COLUMN)
    data = store.blobs.get(pack_command(store, place, name="delay"))
    monkeypatch.setattr(bundle, "FORMATS", (1, 2, 3))
    with pytest.raises(StoreTooNew, match="does not know"):
        bundle.decode(data)


def test_tensors_are_rows_where_all_are(tmp_path: Path) -> None:
    text = 'command = ["serve"]\nbatch = false\n' + TENSORS
    tensors = read_folder(folder(tmp_path / "m", text), "m").tensors
    assert tensors is not None
    assert (tensors.rows, tensors.batchable, tensors.inputs[0].shape) == (True, False, (-1, 3))
    tensors = read_folder(
        folder(tmp_path / "m", text.replace("[-1, 3]", "[2, 3]").replace("false", "true")), "m"
    ).tensors
    assert tensors is not None
    assert (tensors.rows, tensors.batchable) == (False, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (COLUMN, "names no command and no class"),
        ('command = "serve"\n' + COLUMN, "Expected `array`"),
        ("command = []\n" + COLUMN, "names no command"),
        ('command = ["serve"]\ninputs = []', "names no inputs"),
        ('command = ["serve"]\nspeed = 1\n' + COLUMN, "unknown field `speed`"),
        ('command = ["serve"]\n' + COLUMN + COLUMN, "two inputs have one name"),
        ('command = ["serve"]\nstart_seconds = 500\n' + COLUMN, "start_seconds is out of range"),
        ('command = ["serve"]\nanswer_seconds = 0\n' + COLUMN, "answer_seconds is out of range"),
        ('command = ["serve"]\nmodel = "a/b"\n' + COLUMN, "a name that no path can have"),
        ('command = ["serve"]\n' + COLUMN.replace("FP64", "FP16"), "column x has another datatype"),
        ('command = ["serve"]\n' + COLUMN + "optional = true", "cannot be optional"),
        ('command = ["serve"]\n' + COLUMN + '[[outputs]]\nname = "y"\ndatatype = "FP64"', "answers with `score` alone"),
        ('command = ["serve"]\n' + TENSORS.replace("shape = [-1]\n", ""), "all a shape, or none"),
        ('command = ["serve"]\n' + TENSORS.partition("[[outputs]]")[0], "all a shape, or none"),
        ('command = ["serve"]\nthreshold = 0.5\n' + TENSORS, "has no threshold"),
        ('command = ["serve"]\n' + TENSORS.replace("FP32", "BF16"), "unknown datatype"),
        ('command = ["serve"]\n' + TENSORS.replace("[-1]", "[-2]"), "impossible shape"),
        ("command = [", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=r"model\.toml") as caught:
        read_folder(folder(tmp_path / "m", text), "m")
    assert said in str(caught.value)


def test_a_folder_without_a_description_or_with_links_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no model\.toml"):
        read_folder(tmp_path, "m")
    place = folder(tmp_path / "m", 'command = ["serve"]\n' + COLUMN)
    (place / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="a link"):
        read_folder(place, "m")


def test_a_folder_declares_what_its_inputs_may_be(tmp_path: Path) -> None:
    text = 'command = ["serve"]\n' + COLUMN
    limits = read_folder(folder(tmp_path / "m", text + "min = 0\nmax = 9.5\n"), "m").inputs[0].limits
    assert limits == Limits(0, 9.5)
    for wrong, why in (
        ("min = 2\nmax = 1\n", "above its greatest"),
        ('values = ["a"]\n', "values are texts"),
        ("values = []\n", "from 1 to"),
    ):
        with pytest.raises(BadInput, match=why):
            read_folder(folder(tmp_path / "m", text + wrong), "m")
    with pytest.raises(BadInput, match="for inputs alone"):
        read_folder(folder(tmp_path / "m", 'command = ["serve"]\n' + TENSORS + "max = 1\n"), "m")
