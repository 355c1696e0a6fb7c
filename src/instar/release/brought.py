"""A model that somebody brings (a file, a folder, or an archive of a folder) becomes a version, from whatever door it comes.

found = bring(store, "flights", "tumour", Path("model.onnx"), Terms(personal=("name",)))
found.version.name, found.bundle      # -> "tumour@1", "b3:..."
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from instar.core.errors import BadInput
from instar.core.identity import Permission, require
from instar.core.limits import Limits
from instar.core.store import Store
from instar.release import card, registry
from instar.release.archives import open_archive, unpack
from instar.release.registry import ModelVersion
from instar.train.bundle import Manifest, load_manifest
from instar.train.class_bundle import pack_brought
from instar.train.file_bundle import BATCH, Batch, pack_file


@dataclass(frozen=True)
class Terms:
    """What is said of a file beside what stands in it; of a folder its `model.toml` says it. See `pack_file`."""

    form: str | None = None
    batch: Batch = "auto"
    personal: tuple[str, ...] = ()
    limits: Mapping[str, Limits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch not in BATCH:
            raise BadInput("that is no way to batch", found=repr(self.batch), asked=", ".join(BATCH))


@dataclass(frozen=True)
class Brought:
    """A version that somebody brought.

    Attributes:
        kind: What it is: `"onnx"`, `"command"` and so on.
        why: Why calls are not answered together; empty if they are.
    """

    version: ModelVersion
    bundle: str
    kind: str
    why: str
    manifest: Manifest

    def document(self) -> dict[str, Any]:
        """As JSON values; `about` is what it takes and gives, in lines for people."""
        facts = {
            "version": self.version.name, "bundle": self.bundle, "form": self.kind,
            "tensors": msgspec.to_builtins(self.manifest.tensors),
        }  # fmt: skip
        if self.manifest.tensors is None:
            facts["columns"] = msgspec.to_builtins(self.manifest.inputs)
        return facts | {"one_by_one": self.why, "about": list(_lines(self.manifest, self.why))}


def bring(store: Store, project: str, name: str, file: Path, terms: Terms | None = None) -> Brought:
    """Register a file or a folder as a version; the same again is the same version.

    Raises:
        NotAllowed: The actor may not release.
        BadInput: It is nothing that can be brought, or something is said of a folder that its `model.toml` says.
        Blocked: It cannot be served.
    """
    require(store.actor, Permission.RELEASE)
    said = terms or Terms()
    if file.is_dir():
        if said != Terms():
            raise BadInput("model.toml of a folder says what else its model is", subject=str(file),
                           asked="no form, batch, limits or personal inputs", next_step="Set them there.")  # fmt: skip
        bundle, kind, why = pack_brought(store, file, name=name), "", ""
    else:
        packed = pack_file(store, file, name=name, form=said.form, batch=said.batch, personal=said.personal,
                           limits=said.limits)  # fmt: skip
        bundle, kind, why = packed.bundle, packed.form, packed.why
    version = registry.register(store, project, name, bundle=bundle, origin="file")
    manifest = load_manifest(store.blobs, bundle)
    return Brought(version, bundle, kind or manifest.kind, why, manifest)


def bring_archive(store: Store, project: str, name: str, archive: Path, terms: Terms | None = None) -> Brought:
    """Register the folder in a zip archive as a version.

    Raises:
        UnsafeModel: The archive leads out of itself, holds links, or would fill the disk.
        NotAllowed, BadInput: As `bring`.
    """
    require(store.actor, Permission.RELEASE)
    with (
        tempfile.TemporaryDirectory(prefix="instar-brought-") as scratch,
        open_archive(archive, f"model {name}") as opened,
    ):
        folder = Path(scratch) / "model"
        unpack(opened, folder)
        return bring(store, project, name, folder, terms)


def _lines(manifest: Manifest, why: str) -> Iterator[str]:
    """What it takes and gives."""
    if manifest.command is not None:
        yield f"command  {' '.join(manifest.command.command)}; {len(manifest.command.files)} files"
    if manifest.plain is not None:
        own = "a lock of its own" if manifest.lock else "nothing beside the standard library"
        yield f"class    {manifest.plain.entry}; {len(manifest.plain.files)} files, needs {own}"
    if manifest.tensors is None:
        for column in manifest.inputs:
            more = ", may be missing" if column.nullable else ""
            yield f"input    {column.name} {column.datatype}{more}{_personal(column.privacy)}{_limited(column.limits)}"
        brought = manifest.command or manifest.plain
        decides = brought is not None and brought.decides
        yield "output   score" + (f", and a decision from {manifest.threshold:g} on" if decides else "")
        return
    for what, tensors in (("input", manifest.tensors.inputs), ("output", manifest.tensors.outputs)):
        for one in tensors:
            more = (", optional" if one.optional else "") + _personal(one.privacy) + _limited(one.limits)
            yield f"{what:<8} {one.name} {one.datatype} {list(one.shape)}{more}"
    yield card.stacked(msgspec.to_builtins(manifest.tensors)) + (f" ({why})" if why else "")


def _limited(limits: Limits | None) -> str:
    return f", {limits.describe()}" if limits is not None else ""


def _personal(privacy: str) -> str:
    return ", personal" if privacy == "personal" else ""
