"""What a shim is asked to load of a bundle, when its worker begins: the way and the files, each looked at here before.

The shim has the standard library alone, so a file is named by its SHA-256; it is taken from the bytes that were held to the
digest of the manifest and inspected. So what somebody swaps between the look and the load is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instar.core.errors import Damaged
from instar.core.ids import digest
from instar.train import mlmodel
from instar.train.bundle import CLASS, CODE_FILE, FOLDER, NATIVE_FILE, Manifest, PlainClass


def request(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """The message that asks a shim to load the model of an unpacked bundle.

    Raises:
        UnsafeModel, NotAllowed: A file of it may not be loaded.
        Blocked: It answers in a form that is not served.
        Damaged: A file of it was changed on disk.
    """
    subject = f"model {manifest.model}"
    asked: dict[str, Any] = {"do": "load", "form": manifest.form, "alone": "", "output": mlmodel.ONLY_OUTPUT}
    if manifest.plain is not None:
        asked |= _plain(folder, manifest.plain, subject)
    else:
        asked |= (
            _logged(folder, manifest, subject) if manifest.folder is not None else _native(folder, manifest, subject)
        )
    asked["columns"] = [(one.name, one.datatype) for one in manifest.inputs]
    if manifest.tensors is not None:
        if manifest.plain is None and [one.name for one in manifest.tensors.inputs] == [mlmodel.ONLY_INPUT]:
            asked["alone"] = mlmodel.ONLY_INPUT
        if len(manifest.tensors.outputs) == 1:
            asked["output"] = manifest.tensors.outputs[0].name
    return asked


def _native(folder: Path, manifest: Manifest, subject: str) -> dict[str, Any]:
    from instar.release.scan import admit
    from instar.train.native import modules_of

    if manifest.native is None:
        raise Damaged("it has no native form", subject=subject)
    checked: dict[str, str] = {}
    code = folder / CODE_FILE if manifest.code else None
    if code is not None and manifest.code is not None:
        _looked_at(code, manifest.code, checked, subject)
    own = modules_of(code)
    admit(_looked_at(folder / NATIVE_FILE, manifest.native, checked, subject), own)
    return {
        "way": "pickle", "file": str(folder / NATIVE_FILE), "logged": False, "own": own, "checked": checked,
        "code": str(code) if code is not None else "",
    }  # fmt: skip


def _logged(folder: Path, manifest: Manifest, subject: str) -> dict[str, Any]:
    from instar.release.scan_files import inspect_file
    from instar.train.flavors import inspected

    root, described, own = inspected(folder, manifest, lambda file, path, own: inspect_file(file, path, own).refused)
    assert manifest.folder is not None
    checked: dict[str, str] = {}
    for name, wanted in manifest.folder.files.items():
        _looked_at(root / name, wanted, checked, subject)
    flavor = manifest.folder.served_as
    settings: Mapping[str, Any] = described.flavors[flavor]
    code = settings.get("code")
    asked: dict[str, Any] = {"logged": True, "own": own, "checked": checked}
    asked["code"] = str(root / code) if isinstance(code, str) and code else ""
    if manifest.tensors is None:
        if flavor == "sklearn" and settings.get("serialization_format") != "skops":
            return {**asked, "way": "pickle", "file": str(root / str(settings.get("pickled_model") or "model.pkl"))}
        data = str(settings.get("data") or {"xgboost": "model.xgb"}.get(flavor, "model.lgb"))
        if flavor == "xgboost":
            kind = str(settings.get("model_class") or "xgboost.core.Booster").rsplit(".", 1)[-1]
            return {**asked, "way": "xgboost", "kind": kind, "file": str(root / data)}
        if flavor == "lightgbm" and not data.endswith((".skops", ".pkl")):
            return {**asked, "way": "lightgbm", "file": str(root / data)}
        if flavor == "lightgbm" and data.endswith(".pkl"):
            return {**asked, "way": "pickle", "file": str(root / data)}
    return {**asked, "way": "pyfunc", "code": "", "folder": str(folder / FOLDER)}


def _plain(folder: Path, plain: PlainClass, subject: str) -> dict[str, Any]:
    place = folder / CLASS
    checked: dict[str, str] = {}
    for name, wanted in plain.files.items():
        _looked_at(place / name, wanted, checked, subject)
    own = sorted({name.split("/")[0].removesuffix(".py") for name in plain.files if name.endswith(".py")})
    return {
        "way": "class", "entry": plain.entry, "decides": plain.decides, "folder": str(place), "code": str(place), "own": own,
        "checked": checked,
    }  # fmt: skip


def _looked_at(file: Path, wanted: str, checked: dict[str, str], subject: str) -> bytes:
    """The bytes of a file of the bundle, noted by the digest that the shim holds it to."""
    data = file.read_bytes()
    found = digest(data)
    if found != wanted:
        raise Damaged(f"its file {file.name} was changed", subject=subject, found=found, asked=wanted)
    checked[str(file)] = hashlib.sha256(data).hexdigest()
    return data
