"""From one file of a model to a bundle, when somebody brings it: an ONNX graph, or trees of XGBoost or LightGBM.

The file is the model: it is kept as it came (trees in the form that workers load), and the manifest says which tensors it takes
and gives. It was made elsewhere, so no run, rows or environment stand behind it.

    digest = pack_file(store, Path("model.onnx"), name="tumour")
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from instar.core import ids
from instar.core.errors import BadInput
from instar.core.limits import Limits
from instar.core.store import Store
from instar.train import bundle
from instar.train.bundle import TENSOR_FORMAT, Manifest, Portable, Tensors
from instar.train.environment import Environment
from instar.train.examining import Examined, examine

KIND = "file"
Batch = Literal["auto", "exact", "off"]
BATCH: tuple[Batch, ...] = ("auto", "exact", "off")
SUFFIXES = {
    ".onnx": "onnx",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".json": "xgboost",
    ".lgb": "lightgbm",
    ".txt": "lightgbm",
}


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        why: Why calls are not answered together; empty if they are.
    """

    bundle: str
    form: str
    tensors: Tensors
    why: str


def pack_file(
    store: Store,
    file: Path,
    *,
    name: str,
    form: str | None = None,
    batch: Batch = "auto",
    personal: Collection[str] = (),
    limits: Mapping[str, Limits] | None = None,
) -> Packed:
    """Pack a file; the same file of one name gives one bundle.

    Args:
        name: What the model is called.
        form: `"onnx"`, `"xgboost"` or `"lightgbm"`; by default the file's suffix says it.
        batch: Are rows of several calls answered together? `"auto"`: where a row's answer depends on that row alone.
            `"exact"`: where it is then equal to the last bit, too. `"off"`: never.
        personal: Inputs that tell of a person: kept apart in the record, and masked.
        limits: What a call may send, by input.

    Raises:
        BadInput: There is no such file, or it is none of that form.
        Blocked: It cannot be served.
    """
    form = form or SUFFIXES.get(file.suffix.lower())
    if form not in ("onnx", "xgboost", "lightgbm"):
        raise BadInput("its name does not say what it is", subject=str(file), asked="--form onnx, xgboost or lightgbm")
    if not file.is_file():
        raise BadInput("there is no such file", subject=str(file))
    with tempfile.TemporaryDirectory() as scratch:
        # Read from where nothing lies beside it: what the bundle will not have must not be found now.
        copy, trees = Path(scratch) / f"model.{form}", Path(scratch) / "trees"
        copy.write_bytes(file.read_bytes())
        found = examine(copy, form, None if form == "onnx" else trees, called=str(file))
        kept = copy if form == "onnx" else trees
        size, digest = kept.stat().st_size, store.blobs.put_file(kept)
    tensors, why = _decided(found, batch, personal, limits or {})
    manifest = Manifest(
        format=TENSOR_FORMAT,
        model=name,
        step="",
        kind=KIND,
        recipe=ids.digest_of([KIND, name]),
        parameters={"form": form},
        target="",
        inputs=(),
        outputs=(),
        threshold=0.5,
        native=None,
        form="tensors",
        portable=Portable("onnx" if form == "onnx" else "treelite", digest, size, (), layout="tensors"),
        environment=store.blobs.put(ids.canonical_json(msgspec.to_builtins(Environment("", "", "", "", {})))),
        run="",
        fitted_on="",
        fitted_rows=0,
        tensors=tensors,
    )
    return Packed(bundle.pack(store.blobs, manifest), form, tensors, why)


def _decided(
    found: Examined, batch: Batch, personal: Collection[str], limits: Mapping[str, Limits]
) -> tuple[Tensors, str]:
    tensors, why = found.tensors, found.why
    unknown = {*personal, *limits} - {one.name for one in tensors.inputs}
    if unknown:
        raise BadInput("it has no such input", found=min(unknown), asked=", ".join(one.name for one in tensors.inputs))
    if batch == "exact" and tensors.batchable and tensors.difference:
        why = f"rows together are answered otherwise than alone, by {tensors.difference:.1e}"
    if batch == "off":
        why = "it was brought so"
    for one in tensors.inputs:
        fault = limits[one.name].fault(one.datatype) if one.name in limits else ""
        if fault:
            raise BadInput(fault, subject=f"input {one.name}", found=one.datatype)
    inputs = tuple(
        msgspec.structs.replace(
            one, privacy="personal" if one.name in personal else one.privacy, limits=limits.get(one.name)
        )
        for one in tensors.inputs
    )
    return msgspec.structs.replace(tensors, inputs=inputs, batchable=tensors.batchable and not why), why
