"""`instar models import`: bring a model's file, or the folder of a program or a class, as a version of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from instar.release.brought import Brought, Terms


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
@click.option("--url", help="Bring it to the server at this address; default INSTAR_URL, else into the store here.")
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
    url: str | None,
    as_json: bool,
) -> None:
    """Bring FILE as a version: an ONNX graph, trees of XGBoost or LightGBM, or a folder with a program or a class.

    The same file again is the same version.
    """
    from instar.core.limits import read_named
    from instar.core.settings import read_settings
    from instar.release.brought import Terms

    address = url or read_settings().url
    if address:
        told = _sent(folder, address, file, name, form=form, batch=batch, personal=personal, limits=limit)
    else:
        told = _brought(folder, file, name, Terms(form, batch, personal, read_named(limit))).document()
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    version = told["version"]
    click.echo(f"{version}: {told['form']}, {told['bundle']}")
    for line in told["about"]:
        click.echo(line)
    click.echo(f"Let it answer: instar approve {version}; instar promote {version}")


def _brought(folder: str | None, file: Path, name: str, terms: Terms) -> Brought:
    """A version in the store here."""
    from instar.app import open_app
    from instar.release.brought import bring
    from instar.serve.traffic.policy_check import check_name

    with open_app(folder, need_project=False) as app:
        check_name(name)
        return bring(app.store, app.project_name, name, file, terms)


def _sent(folder: str | None, url: str, file: Path, name: str, **said: Any) -> dict[str, Any]:
    """A version on a server, in the project here or else the server's own."""
    from instar.interfaces.sdk.client import connect
    from instar.plan.project import find_root_if_any, load_project

    root = find_root_if_any(Path(folder) if folder else Path.cwd(), need=folder is not None)
    with connect(url, project=load_project(root).name if root is not None else None) as server:
        return server.import_model(file, name, **said)
