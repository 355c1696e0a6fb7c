"""`instar models import`: bring a model's file, or the folder of a program or a class, as a version of a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instar.core.errors import BadInput

if TYPE_CHECKING:
    from instar.core.limits import Limits
    from instar.train.bundle import Manifest


@click.command("import")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="The model that it becomes a version of; its endpoint has this name, too.")
@click.option(
    "--form",
    type=click.Choice(["onnx", "xgboost", "lightgbm"]),
    help="What it is; by default its suffix says so (.onnx; .json, .ubj: XGBoost; .txt, .lgb: LightGBM).",
)
@click.option(
    "--batch",
    type=click.Choice(["auto", "exact", "off"]),
    default="auto",
    show_default=True,
    help="Answer rows of several calls together: where they do not depend on each other, where answers are equal to the last bit "
    "then, or never.",
)
@click.option("--personal", multiple=True, metavar="INPUT", help="An input that tells of a person; may be given again.")
@click.option(
    "--limit",
    multiple=True,
    metavar="INPUT=LIMITS",
    help="What a call may send for an input, as in distance=0..10000, share=..1 or carrier=AA,UA; may be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def import_file(
    folder: str | None,
    file: Path,
    name: str,
    form: str | None,
    batch: Any,
    personal: tuple[str, ...],
    limit: tuple[str, ...],
    as_json: bool,
) -> None:
    """Bring FILE as a version: an ONNX graph, trees of XGBoost or LightGBM, or a folder with a program or a class.

    The same file again is the same version.
    """
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.release import registry
    from instar.serve.traffic.policy_check import check_name
    from instar.train.bundle import load_manifest
    from instar.train.class_bundle import pack_brought
    from instar.train.file_bundle import pack_file

    if file.is_dir() and (form or personal or limit or batch != "auto"):
        raise BadInput("model.toml of a folder says what else its model is", subject=str(file),
                       asked="no --form, --batch, --limit or --personal", next_step="Set them there.")  # fmt: skip
    with open_app(folder, need_project=False) as app:
        require(app.store.actor, Permission.RELEASE)
        check_name(name)
        if file.is_dir():
            bundle, kind, why = pack_brought(app.store, file, name=name), "", ""
        else:
            packed = pack_file(app.store, file, name=name, form=form, batch=batch, personal=personal,
                               limits=_limits(limit))  # fmt: skip
            bundle, kind, why = packed.bundle, packed.form, packed.why
        version = registry.register(app.store, app.project_name, name, bundle=bundle, origin="file")
        manifest = load_manifest(app.store.blobs, bundle)
        kind = kind or manifest.kind
    if as_json:
        click.echo(json.dumps(_document(manifest, version.name, bundle, kind, why), indent=2))
        return
    click.echo(f"{version.name}: {kind}, {bundle}")
    for line in _lines(manifest, why):
        click.echo(line)
    click.echo(f"Let it answer: instar approve {version.name}; instar promote {version.name}")


def _limits(said: tuple[str, ...]) -> dict[str, Limits]:
    from instar.core.limits import read_limits

    found = {}
    for one in said:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise BadInput("that is no limit", found=repr(one), asked="INPUT=0..10000, or INPUT=A,B")
        found[name] = read_limits(text)
    return found


def _document(manifest: Manifest, version: str, bundle: str, kind: str, why: str) -> dict[str, Any]:
    import msgspec

    facts = {"version": version, "bundle": bundle, "form": kind, "tensors": msgspec.to_builtins(manifest.tensors)}
    if manifest.tensors is None:
        facts["columns"] = msgspec.to_builtins(manifest.inputs)
    return facts | {"one_by_one": why}


def _lines(manifest: Manifest, why: str) -> Iterator[str]:
    """What it takes and gives."""
    import msgspec

    from instar.release import card

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
