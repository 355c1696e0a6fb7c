"""The commands of planning: `instar init` makes a project, `why` and `status` say how its steps stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from instar.plan.runner import StepStatus

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
TEMPLATE = Path(__file__).parent / "template"
# Files of the template, and their names in a project.
FILES = {
    "instar.toml": "instar.toml",
    "pipeline.py.txt": "pipeline.py",
    "make_bookings.py.txt": "make_bookings.py",
    "gitignore.txt": ".gitignore",
}


@click.command("init")
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", default=None, help="Name of the project; default the folder's.")
@click.pass_obj
def init(project: str | None, folder: Path, name: str | None) -> None:
    """Make a small working project in FOLDER (default: here)."""
    target = Path(project) / folder if project else folder
    made = make_project(target, name or _name_from(target))
    for file in made:
        click.echo(f"wrote {file}")
    click.echo("Next: instar run" if target == Path() else f"Next: cd {target} && instar run")


def make_project(folder: Path, name: str) -> list[Path]:
    """Write the template project; returns its files.

    Raises:
        Conflict: A file is there already; nothing is written.
        ContractError: The name cannot be a project's.
    """
    import runpy

    from instar.core.errors import Conflict
    from instar.core.identity import local_user
    from instar.plan.project import parse_contract

    texts = {target: (TEMPLATE / file).read_text(encoding="utf-8") for file, target in FILES.items()}
    contract = texts["instar.toml"].replace("{{name}}", name).replace("{{owner}}", local_user().name)
    parse_contract(contract)
    texts["instar.toml"] = contract
    there = [target for target in (*texts, "data/bookings.csv") if (folder / target).exists()]
    if there:
        raise Conflict(
            "there are files already which it would overwrite",
            subject=f"folder {folder}",
            found=", ".join(there),
            next_step="Name another folder: instar init FOLDER",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for target, text in texts.items():
        (folder / target).write_text(text, encoding="utf-8")
    runpy.run_path(str(folder / "make_bookings.py"), run_name="__main__")
    return [folder / target for target in (*texts, "data/bookings.csv")]


def _name_from(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.absolute().name.lower()).strip("-_")
    return name if name[:1].isalpha() else f"project-{name}".strip("-")


@click.command("why")
@click.argument("step")
@AS_JSON
@click.pass_obj
def why(folder: str | None, step: str, as_json: bool) -> None:
    """Say why STEP would run, or why it ran the last time."""
    from instar.app import open_app
    from instar.plan import runner

    with open_app(folder) as app:
        found = runner.why(app.store, app.project, app.pipeline, app.kinds(), step)
    if as_json:
        click.echo(json.dumps(found.record(), indent=2))
        return
    click.echo(f"{step} {_STANDING[found.state]}{':' if found.reasons else ''}")
    for reason in found.reasons:
        click.echo(f"  {reason.text}")
    if found.last is not None and found.last.error:
        click.echo(f"  the last attempt failed: {found.last.error}")
    for one in found.unresolved:
        click.echo(f"  cannot be followed, so declare it with files=, variables= or ignore=: {one}")


@click.command("status")
@AS_JSON
@click.pass_obj
def status(folder: str | None, as_json: bool) -> None:
    """Show the project's steps and which of them are current."""
    from instar.app import open_app
    from instar.plan import runner
    from instar.serve.processes import fence

    with open_app(folder) as app:
        name, revision = app.project.name, app.project.revision
        found = runner.status(app.store, app.project, app.pipeline, app.kinds())
    if as_json:
        document = {"project": name, "contract": revision, "steps": [one.record() for one in found]}
        document["workers"] = fence.standing()
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{name}, contract {revision[:11]}")
    _print_steps(found)
    click.echo(f"models that answer calls are {fence.standing()}")


def read_parameters(given: tuple[str, ...]) -> dict[str, object]:
    """What was given with `-S STEP.PARAMETER=VALUE`."""
    found: dict[str, object] = {}
    for one in given:
        path, equals, value = one.partition("=")
        if not equals or "." not in path:
            raise click.BadParameter(f"{one!r} is not STEP.PARAMETER=VALUE", param_hint="-S")
        found[path.strip()] = value.strip()
    return found


# What `why` says of a step in each state, before the reasons.
_STANDING = {
    "current": "is current; it ran the last time because",
    "stale": "would run, because",
    "never": "would run, because",
    "failed": "failed, and would run again, because",
    "running": "was running when its process was last seen, and would run again, because",
    "landed": "is fed from outside, and has rows",
    "empty": "is fed from outside, and has no rows yet; land some with: instar ingest",
}


def _print_steps(found: list[StepStatus]) -> None:
    width = max([len(one.step) for one in found], default=0)
    for one in found:
        content = one.digest[:11] if one.digest else "-"
        reason = one.reasons[0].text if one.reasons and one.would_run else ""
        more = f" and {len(one.reasons) - 1} more" if reason and len(one.reasons) > 1 else ""
        click.echo(f"{one.step:{width}}  {one.kind:8}  {one.state:8}  {content:11}  {reason}{more}".rstrip())


commands: dict[str, click.Command] = {"init": init, "why": why, "status": status}
