"""What of uploaded files would run code is seen without loading any of them; archives that would do harm are not opened."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import UnsafeModel
from instar.core.store import Store
from instar.release import archives, scan, scan_files
from instar.release.archives import open_archive


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("never",))


def zipped(entries: dict[str, bytes], path: Path | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    if path is not None:
        path.write_bytes(held.getvalue())
    return held.getvalue()


def found(tmp_path: Path, name: str, body: bytes) -> scan_files.Finding:
    (tmp_path / "file").write_bytes(body)
    return scan_files.inspect_file(tmp_path / "file", name)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ["model.pkl", "data/x.pth", "m.joblib", "hidden.txt"])
def test_a_pickle_is_known_by_its_bytes_or_its_name(tmp_path: Path, protocol: int, name: str) -> None:
    if protocol < 2 and name == "hidden.txt":
        return  # the first protocols have no mark; nothing loads such a file under such a name
    assert found(tmp_path, name, pickle.dumps(Evil(), protocol)).refused
    assert found(tmp_path, name, pickle.dumps({"a": [1, 2.0, "x"]}, protocol)).refused == ""


def test_plain_files_are_data(tmp_path: Path) -> None:
    for name, body in (
        ("MLmodel", b"flavors: {}"),
        ("a.csv", b"a,b\n1,2\n"),
        ("model.onnx", b"\x08\x07graph"),
        ("empty", b""),
    ):
        assert found(tmp_path, name, body) == scan_files.DATA
    assert found(tmp_path, "model.keras", b"PK\x03\x04").refused


# What PyTorch 2 writes for a layer: names, and a reference to a storage of its own archive.
TORCH = (
    b"\x80\x02ctorch.nn.modules.linear\nLinear\nq\x00)\x81q\x01}q\x02X\x06\x00\x00\x00weightq\x03"
    b"ctorch._utils\n_rebuild_parameter\nq\x04ctorch._utils\n_rebuild_tensor_v2\nq\x05"
    b"((X\x07\x00\x00\x00storageq\x06ctorch\nFloatStorage\nq\x07X\x01\x00\x00\x000q\x08X\x03\x00\x00\x00cpuq\tK\x02tq\nQ"
    b"K\x00K\x01K\x02\x86q\x0bK\x02K\x01\x86q\x0c\x89ccollections\nOrderedDict\nq\r)Rq\x0etq\x0fRq\x10\x88h\r)Rq\x11"
    b"\x87q\x12Rq\x13sb."
)  # fmt: skip


def test_pytorchs_archives_are_looked_into(tmp_path: Path) -> None:
    assert found(
        tmp_path, "model.pth", zipped({"model/data.pkl": TORCH, "model/data/0": b"\0" * 8})
    ) == scan_files.Finding("torch")
    # Outside of such an archive the same names and references are not allowed.
    assert found(tmp_path, "model.pkl", TORCH).refused
    evil = zipped({"model/data.pkl": pickle.dumps(Evil(), 2)})
    assert (
        "builtins.print" in found(tmp_path, "model.pth", evil).refused
        or "__builtin__" in found(tmp_path, "x.pt", evil).refused
    )
    nested = zipped({"model/data/sample_inputs/model.pt": evil, "model/models/model.json": b"{}"})
    assert found(tmp_path, "model.pt2", nested).refused
    for name in (
        "torch.hub\nload\n",
        "torch\nload\n",
        "torch.serialization\nload\n",
        "torch.nn.modules.container\nos\n",
    ):
        body = b"\x80\x02c" + name.encode() + b")R."
        assert found(tmp_path, "model.pth", zipped({"m/data.pkl": body})).refused, name


def test_types_of_skops_are_held_to_the_same_list(tmp_path: Path) -> None:
    good = {"__class__": "Pipeline", "__module__": "sklearn.pipeline", "__loader__": "ObjectNode", "content": {
        "a": {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": '"x"'}}}  # fmt: skip
    bad = {**good, "content": [{"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}]}
    partly = {**good, "content": {"__class__": "partial", "__module__": "functools", "__loader__": "PartialNode"}}
    assert found(tmp_path, "model.skops", zipped({"schema.json": json.dumps(good).encode()})) == scan_files.Finding(
        "skops"
    )
    for schema in (bad, partly):
        assert found(tmp_path, "model.skops", zipped({"schema.json": json.dumps(schema).encode()})).refused
    assert found(tmp_path, "model.skops", zipped({"schema.json": b"{"})).refused


def test_archives_that_would_do_harm_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(path, "symbolic link")
    for name in ("../out", "/out", "a/../../out", "..\\out", "C:/out"):
        zipped({name: b"x"}, path)
        refused(path, "leads out")
    zipped({"zeros": b"\0" * (archives.RATIO_FROM_BYTES + 1)}, path, zipfile.ZIP_DEFLATED)
    refused(path, "unpacks to far more")
    many = {f"part{number}": b"\0" * (archives.RATIO_FROM_BYTES // 4) for number in range(6)}
    zipped(many, path, zipfile.ZIP_DEFLATED)
    refused(path, "unpacks to far more")
    monkeypatch.setattr(archives, "MOST_ENTRIES", 3)
    zipped({str(number): b"" for number in range(4)}, path)
    refused(path, "too many entries")
    path.write_bytes(b"PK\x03\x04 and then nothing")
    refused(path, "cannot be read")
    assert scan_files.inspect_file(path, "x.zip").kind == "archive"


def refused(path: Path, why: str) -> None:
    with pytest.raises(UnsafeModel, match=why), open_archive(path):
        raise AssertionError("it was opened")


@given(st.binary(max_size=300), st.sampled_from(["model.pkl", "model.pth", "x", "schema.json"]))
def test_no_bytes_are_a_failure_of_ours(tmp_path_factory: pytest.TempPathFactory, body: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    for text in (body, b"\x80\x04" + body, zipped({"data.pkl": body, "schema.json": body})):
        path.write_bytes(text)
        scan_files.inspect_file(path, name)


def test_findings_are_kept_under_the_content(store: Store, tmp_path: Path) -> None:
    bad = store.blobs.put(pickle.dumps(Evil()))
    scan_files.note(store, bad, scan_files.inspect_file(store.blobs.path(bad), "a.pkl"))
    scan_files.note(store, bad, scan_files.inspect_file(store.blobs.path(bad), "b.pkl"))
    scan_files.note(store, store.blobs.put(b"x"), scan_files.DATA)
    assert set(scan_files.findings(store, [bad, store.blobs.put(b"x")])) == {bad}


def test_libraries_cannot_be_brought_by_a_folder() -> None:
    for module in ("mlflow.evil", "skops.io", "lightgbm.evil", "xgboost.evil", "torch.evil"):
        assert scan.inspect(b"c" + module.encode() + b"\nrun\n)R.", [module.split(".")[0]]).refused
