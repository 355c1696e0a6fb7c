"""`instar models import`: bring a model's file, and give it a number among the versions of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def import_file(
    folder: str | None,
    file: Path,
    name: str,
    form: str | None,
    batch: Any,
    personal: tuple[str, ...],
    as_json: bool,
) -> None:
    """Bring FILE, an ONNX graph or trees of XGBoost or LightGBM, as a version of a model; the same file again is the same one."""
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.release import card, registry
    from instar.train.bundle import load_manifest
    from instar.train.file_bundle import pack_file

    with open_app(folder, need_project=False) as app:
        require(app.store.actor, Permission.RELEASE)
        packed = pack_file(app.store, file, name=name, form=form, batch=batch, personal=personal)
        version = registry.register(app.store, app.project_name, name, bundle=packed.bundle, origin="file")
        manifest = load_manifest(app.store.blobs, packed.bundle)
    import msgspec

    tensors = msgspec.to_builtins(manifest.tensors)
    if as_json:
        facts = {"version": version.name, "bundle": packed.bundle, "form": packed.form, "tensors": tensors}
        click.echo(json.dumps(facts | {"one_by_one": packed.why}, indent=2))
        return
    click.echo(f"{version.name}: {packed.form}, {packed.bundle}")
    for what in ("inputs", "outputs"):
        for one in tensors[what]:
            more = ", optional" if one["optional"] else ""
            more += ", personal" if one["privacy"] == "personal" else ""
            click.echo(f"{what[:-1]:<8} {one['name']} {one['datatype']} {list(one['shape'])}{more}")
    click.echo(card.stacked(tensors) + (f" ({packed.why})" if packed.why else ""))
    click.echo(f"Let it answer: instar approve {version.name}; instar promote {version.name}")
