"""The commands of release: `instar models ls|show|card|report|alias`, `instar evaluate`, `instar approve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.groups import Group
from instar.interfaces.cli.model_files import import_file
from instar.interfaces.cli.tables import print_table

if TYPE_CHECKING:
    from instar.release.registry import ModelVersion

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group("models", cls=Group)
def models() -> None:
    """List and show model versions, their cards and reports."""


@models.command("ls")
@click.argument("model", required=False)
@AS_JSON
@click.pass_obj
def list_models(folder: str | None, model: str | None, as_json: bool) -> None:
    """Every model version of the project, or those of MODEL."""
    from instar.app import open_app
    from instar.core.errors import NotFound
    from instar.operate.review import names_of
    from instar.release import registry

    with open_app(folder, need_project=False, make=False) as app:
        found = registry.versions(app.store, app.project_name, model)
        if model is not None and not found:
            raise NotFound("there is no such model", subject=f"model {model}", next_step="List them: instar models ls")
        names = {one: names_of(app.store, app.project_name, one) for one in {v.model for v in found}}
    listed = [{**registry.document(one), "aliases": names[one.model].get(one.number, [])} for one in found]
    if as_json:
        click.echo(json.dumps(listed, indent=2))
    elif not listed:
        click.echo("no model versions yet; `instar run` makes and registers them")
    else:
        header = ["version", "state", "names", "origin", "evaluation", "registered", "by", "bundle"]
        print_table(header, [_row(one, names[one.model].get(one.number, [])) for one in found])


@models.command("show")
@click.argument("version")
@AS_JSON
@click.pass_obj
def show(folder: str | None, version: str, as_json: bool) -> None:
    """One version (such as delay@3 or delay@champion) and what its gates found."""
    from instar.app import open_app
    from instar.operate.review import find_version
    from instar.release.card import card

    with open_app(folder, need_project=False, make=False) as app:
        facts = card(app.store, find_version(app.store, app.project_name, version), app.project_if_any)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print_version(facts)


@models.command("build")
@click.argument("version")
@AS_JSON
@click.pass_obj
def build(folder: str | None, version: str, as_json: bool) -> None:
    """Have the environment ready that a version (such as delay@3) answers from, before it is routed; prints its Python."""
    import sys

    from instar.app import open_app
    from instar.operate.review import find_version
    from instar.serve.publishing import snapshot, waiting
    from instar.train import environment_places, own_environment
    from instar.train.bundle import load_manifest

    with open_app(folder, need_project=False, make=False) as app:
        found = find_version(app.store, app.project_name, version)
        manifest = load_manifest(app.store.blobs, found.bundle)
        own_environment.settle(app.store, manifest)
        name = own_environment.prepare(app.store, manifest, tell=lambda text: click.echo(text, err=True))
        python = environment_places.interpreter(app.store.folder, name) if name else sys.executable
        if any(one.environment == name for one in waiting.read(app.store.folder)):
            snapshot.publish(app.store)  # it was waited for
    if as_json:
        click.echo(json.dumps({"version": found.name, "environment": name or None, "python": python}, indent=2))
    else:
        click.echo(python if name else f"{python}  (all that {found.name} needs is installed here)")


@models.command("card")
@click.argument("version")
@AS_JSON
@click.pass_obj
def show_card(folder: str | None, version: str, as_json: bool) -> None:
    """The model card of one version, in Markdown."""
    from instar.app import open_app
    from instar.operate.review import find_version
    from instar.release.card import card, to_markdown

    with open_app(folder, need_project=False, make=False) as app:
        facts = card(app.store, find_version(app.store, app.project_name, version), app.project_if_any)
    click.echo(json.dumps(facts, indent=2) if as_json else to_markdown(facts), nl=as_json)


@models.command("report")
@click.argument("version")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def write_report(folder: str | None, version: str, file: Path) -> None:
    """Write the report of a version's evaluation to FILE: a page, or JSON when its name ends in .json."""
    from instar.app import open_app
    from instar.core.errors import NotFound
    from instar.evaluate.evaluation import get_evaluation
    from instar.operate.review import find_version

    with open_app(folder, need_project=False, make=False) as app:
        found = find_version(app.store, app.project_name, version)
        if found.evaluation is None:
            raise NotFound(
                "it was never evaluated", subject=found.name, next_step=f"Judge it: instar evaluate {found.name}"
            )
        evaluation = get_evaluation(app.store, found.evaluation)
        digest = evaluation.report_json if file.suffix == ".json" else evaluation.report_html
        file.write_bytes(app.store.blobs.get(digest))
    click.echo(f"{found.name}: {evaluation.verdict.state}, report in {file}")


@models.command("alias")
@click.argument("model")
@click.argument("name")
@click.argument("number", type=click.IntRange(1), required=False)
@click.pass_obj
def set_alias(folder: str | None, model: str, name: str, number: int | None) -> None:
    """Point NAME at version NUMBER of MODEL; without a number the name is taken away."""
    from instar.app import open_app
    from instar.release import registry
    from instar.serve.traffic.derived import derive

    with open_app(folder, need_project=False, make=False) as app:
        project = app.project_name
        registry.set_alias(app.store, project, model, name, number, derive(app.store, project))
    click.echo(f"{model}@{name} is {model}@{number}" if number else f"{model}@{name} is no more")


models.add_command(import_file)


@click.command("evaluate")
@click.argument("version")
@AS_JSON
@click.pass_obj
def evaluate(folder: str | None, version: str, as_json: bool) -> None:
    """Judge VERSION by the gates of its problem, on the newest data, against what answers today."""
    from instar.app import open_app
    from instar.evaluate.evaluation import document
    from instar.operate.review import find_version, judge_again

    with open_app(folder, need_project=False, make=False) as app:
        found = judge_again(app.loop(), find_version(app.store, app.project_name, version))
    if as_json:
        click.echo(json.dumps(document(found), indent=2))
        return
    click.echo(f"{found.verdict.state}: {found.verdict.reason} ({found.id})")
    _print_checks(document(found)["verdict"]["checks"])


@click.command("approve")
@click.argument("version")
@click.option("--note", default="", help="What you want on the record.")
@click.option("--expires-at", default=None, metavar="TIME", help="End of the approval (RFC 3339); default none.")
@click.option(
    "--waive", "gate", default=None, metavar="GATE", help="Pass over this gate; needs --note and --expires-at."
)
@click.option("--withdraw", is_flag=True, help="Take back what allows it; needs --note. It goes on where it answers.")
@AS_JSON
@click.pass_obj
def approve(
    folder: str | None, version: str, note: str, expires_at: str | None, gate: str | None, withdraw: bool, as_json: bool
) -> None:
    """Approve VERSION on its evidence, by the policy of its problem; or take its approval back."""
    from instar.app import open_app
    from instar.core.errors import BadInput
    from instar.evaluate.evaluation import get_evaluation
    from instar.interfaces.moments import moment_if
    from instar.operate import review
    from instar.release import approval, waivers
    from instar.train import proofs
    from instar.train.bundle import load_manifest

    if withdraw:
        if expires_at or gate:
            raise BadInput("an approval is given or taken back, not both", subject=version, found="--withdraw")
        _withdraw(folder, version, note, as_json)
        return
    ends = moment_if(expires_at)
    with open_app(folder, need_project=False, make=False) as app:
        found = review.find_version(app.store, app.project_name, version)
        if gate is not None:
            if ends is None or found.evaluation is None:
                raise BadInput(
                    "a waiver needs an evaluated version, a reason and an end",
                    subject=found.name,
                    asked="--note and --expires-at",
                )
            waivers.waive(app.store, get_evaluation(app.store, found.evaluation), gate, note, ends)
        given = review.approve(app.store, app.project_if_any, found, note=note, expires_at=ends)
        made_by = load_manifest(app.store.blobs, found.bundle).run
        proven = proofs.of_run(app.store, found.project, made_by)
    if as_json:
        click.echo(json.dumps(approval.document(given), indent=2))
    else:
        click.echo(f"{found.name} is approved by {given.approved_by} ({given.id})")
        more = "" if proven or not made_by else f"; to prove it: instar reproduce {made_by}"
        click.echo(f"made again: {proofs.said(proven)}{more}")


def _withdraw(folder: str | None, version: str, reason: str, as_json: bool) -> None:
    from instar.app import open_app
    from instar.operate import review
    from instar.release import approval
    from instar.serve.traffic import routing

    with open_app(folder, need_project=False, make=False) as app:
        found = review.find_version(app.store, app.project_name, version)
        taken = approval.withdraw(app.store, found, reason)
        now = routing.current(app.store, found.model)
    if as_json:
        click.echo(json.dumps([approval.document(one) for one in taken], indent=2))
        return
    click.echo(f"{found.name} is approved no more: {reason} ({', '.join(one.id for one in taken)})")
    if now is not None and now.policy.project == found.project and found.number in now.policy.answering:
        click.echo(f"it answers calls of {found.model} until that is changed: instar rollback, or instar route")


def _row(version: ModelVersion, names: list[str]) -> list[str]:
    return [
        version.name, version.state, ", ".join(names), version.origin, version.evaluation or "-",
        f"{version.created_at:%Y-%m-%d %H:%M}", version.registered_by, version.bundle[:15],
    ]  # fmt: skip


def _print_version(facts: dict[str, Any]) -> None:
    model, data = facts["model"], facts["data"]
    lines = [
        ("version", f"{facts['version']} ({facts['id']}), {facts['state']}"),
        ("known as", ", ".join(facts["aliases"])),
        ("origin", f"{facts['origin']}, registered by {facts['registered_by']} on {facts['created_at'][:16]}"),
        ("refit of", facts["refit_of"]),
        ("barred", f"until {facts['barred_until']}" if facts["barred_until"] else None),
        ("description", facts["description"]),
        ("tags", ", ".join(f"{key}={value}" for key, value in facts["tags"].items())),
        ("source", facts["source"]),
        ("bundle", model["bundle"]),
        ("run", model["run"]),
        *_made(model, data),
        ("runs in", _own_environment(model["own_environment"])),
        *(("made again", _again(one)) for one in facts["reproductions"]),
        *(
            ("approval", f"{one['state']} by {one['approved_by'] or 'nobody yet'}, {one['id']}")
            for one in facts["approvals"]
        ),
    ]
    for name, value in lines:
        if value:
            click.echo(f"{name:<12} {value}")
    found = facts["evaluation"]
    if found is None:
        from instar.train.bundle import BROUGHT

        what, command = ("approve it", "approve") if model["kind"] in BROUGHT else ("judge it", "evaluate")
        click.echo(f"{'evaluation':<12} none; {what}: instar {command} {facts['version']}")
        return
    click.echo(f"{'evaluation':<12} {found['verdict']}: {found['reason']} ({found['id']})\n")
    _print_checks(found["checks"])
    click.echo()
    rows = [
        [name, *(_number(value[key]) for key in ("value", "low", "high"))] for name, value in found["metrics"].items()
    ]
    print_table(["metric", "value", "low", "high"], rows)


def _own_environment(found: dict[str, Any] | None) -> str:
    """How it stands with a version's own environment, in a line; empty where it needs none."""
    if found is None:
        return ""
    took = f", built in {found['seconds']:.1f} s" if found.get("seconds") is not None else ""
    why = f": {found['reason']}" if found.get("reason") else ""
    if not found["environment"]:
        return f"what is installed beside Instar, since its own environment cannot be had{why}"
    return f"its own environment {found['environment'][:15]}, {found['state']}{took}{why}"


def _again(one: dict[str, Any]) -> str:
    why = f"; first cause: {one['first_cause']}" if one["first_cause"] else ""
    return f"{one['verdict']} ({one['question']}) on {one['at'][:16]} by {one['by']}, {one['repetition']}{why}"


def _made(model: dict[str, Any], data: dict[str, Any]) -> list[tuple[str, str]]:
    """How a version's bundle was made, as lines."""
    parameters = ", ".join(f"{key}={value}" for key, value in model["parameters"].items()) or "no parameters"
    folder = model["folder"]
    if model["kind"] == "class":
        return [("made", f"as a class that somebody brought, {model['parameters']['entry']}"), ("form", model["form"])]
    if model["kind"] == "file":
        return [("made", "elsewhere, and brought as a file"), ("form", model["form"])]
    if folder is not None:
        own = ", runs Python code of its own" if folder["code"] else ""
        return [
            ("logged", f"by MLflow, {folder['files']} files, flavours {', '.join(folder['flavors']) or 'none'}{own}"),
            ("parameters", parameters),
            ("served as", model["form"] if not folder["unservable"] else f"cannot be: {folder['unservable']}"),
        ]
    return [
        ("step", f"{model['step']}, {parameters}"),
        ("form", f"{model['form']}{', ' + model['unportable'] if model['unportable'] else ''}"),
        ("threshold", f"{model['threshold']:.4g}"),
        ("fitted on", f"{data['rows']} rows of {data['fitted_on']}, {data['from']} to {data['until']}"),
    ]


def _print_checks(checks: list[dict[str, Any]]) -> None:
    rows = [[check["name"], check["state"], check["found"], check["asked"]] for check in checks]
    print_table(["gate", "state", "found", "asked for"], rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


commands: dict[str, click.Command] = {"models": models, "evaluate": evaluate, "approve": approve}
