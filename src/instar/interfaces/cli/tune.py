"""`instar tune`: search the parameters of a model step; `instar studies`: look at searches made before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.groups import Group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.app import App
    from instar.train.search import Tried
    from instar.train.studies import Study

SAMPLERS = ("tpe", "random", "quasi-random", "grid", "nsga2")
PRUNERS = ("none", "median", "halving", "hyperband")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
HTML = click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report with plots there."
)


@click.command("tune")
@click.argument("step", required=False)
@click.option(
    "--trials", type=click.IntRange(1, 100_000), default=30, show_default=True, help="At most so many in all."
)
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes side by side.")
@click.option("--space", "spaces", multiple=True, metavar="NAME=LOW..HIGH", help="What to search; repeatable.")
@click.option("--objective", "objectives", multiple=True, default=("cost",), show_default=True, metavar="METRIC[:max]",
              help="What to make least (or most); repeatable.")  # fmt: skip
@click.option("--sampler", type=click.Choice(SAMPLERS), default="tpe", show_default=True, help="How points are chosen.")
@click.option(
    "--pruner", type=click.Choice(PRUNERS), default="none", show_default=True, help="When to give a trial up."
)
@click.option(
    "--shares", default="", metavar="SHARE,SHARE", help="Fit on these shares of the rows first, for the pruner."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the search.")
@click.option(
    "-S", "--set", "given", multiple=True, metavar="STEP.PARAMETER=VALUE", help="Fix a parameter; repeatable."
)
@click.option("--no-warm-start", is_flag=True, help="Do not try the best parameters of earlier runs first.")
@click.option("--join", metavar="STUDY", help="Help with a study that another process began.")
@HTML
@AS_JSON
@click.pass_obj
def tune_command(
    project: str | None, step: str | None, trials: int, jobs: int, spaces: tuple[str, ...], objectives: tuple[str, ...],
    sampler: str, pruner: str, shares: str, seed: int, given: tuple[str, ...], no_warm_start: bool, join: str | None,
    html: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Search the parameters of the model step STEP (or of the only one of a problem); each trial is a run.

    The same command again goes on where it was stopped or killed, and makes what is missing of --trials.
    """
    from instar.app import open_app
    from instar.interfaces.cli.plan import read_parameters
    from instar.interfaces.tuning.walk import Wish, open_study

    if (step is None) == (join is None):
        raise click.UsageError("name the step to tune: instar tune STEP")
    with open_app(project) as app:
        if join is not None:
            _join(app, join)
            return
        assert step is not None
        wish = Wish(
            step, trials, spaces, objectives, sampler, pruner, _numbers(shares), seed, read_parameters(given),
            warm=not no_warm_start,
        )  # fmt: skip
        study, ground = open_study(app, wish)
        if not as_json:
            click.echo(f"{study.id}: up to {trials} trials of {study.step} over {', '.join(study.terms['space'])}")
        report = _carry_out(app, study, ground, jobs, quiet=as_json)
    _show(report, html, as_json)


def _carry_out(app: App, study: Study, ground: Any, jobs: int, *, quiet: bool) -> dict[str, Any]:
    """Make the trials; an interrupt keeps what is done."""
    from instar.core.errors import InstarError
    from instar.interfaces.tuning import terminal, walk
    from instar.interfaces.tuning.report import report
    from instar.train import studies, tuning_loop

    names = [one.metric for one in tuning_loop.objectives_of(study)]

    def tell(number: int, state: str, metrics: Mapping[str, float], run: str) -> None:
        if not quiet:
            terminal.print_trial(number, state, metrics, names, run)

    def tell_tried(one: Tried) -> None:
        tell(one.number, one.state, dict(zip(names, one.values, strict=False)), one.run or "")

    state = studies.FINISHED
    try:
        if jobs == 1:
            walk.work(app, study, ground, tell)
        else:
            walk.work_together(app, study, jobs, tell_tried)
    except KeyboardInterrupt:
        state = studies.STOPPED
        if not quiet:
            click.echo("stopped; what is done is kept, and the same command goes on")
    except InstarError as error:
        studies.end(app.store, study, studies.STOPPED, {"error": error.what})
        raise
    unit = app.project.contract.problem[study.problem].cost.unit
    search = app.search(study)
    tuning_loop.take_up(search)
    made = report(app.store, study, search, unit)
    if state == studies.FINISHED and not quiet and len(tuning_loop.counted(search.tried())) < study.trials:
        click.echo("every point of the space was tried")
    result = {
        "best": made["best"],
        "shortlist": [one["run"] for one in made["shortlist"]],
        "trials": len(made["trials"]),
    }
    ended = studies.end(app.store, study, state, result)
    return {**made, "study": studies.document(ended)}


def _join(app: App, name: str) -> None:
    from instar.interfaces.tuning import walk
    from instar.train import studies

    study = studies.get(app.store, name)
    ground = walk.ground_of(app, app.pipeline.step(study.step))
    if ground.version != study.version:
        from instar.core.errors import Conflict

        raise Conflict(
            "the rows have changed since the study began", subject=f"study {study.id}", found=ground.version,
            asked=study.version, next_step=f"Begin another study: instar tune {study.step}",
        )  # fmt: skip
    walk.work(app, study, ground, apart=True)


@click.group("studies", cls=Group)
def studies_group() -> None:
    """List and show studies of tuning."""


@studies_group.command("ls")
@click.option("--step", help="Only studies of this step.")
@AS_JSON
@click.pass_obj
def list_command(project: str | None, step: str | None, as_json: bool) -> None:
    """List studies, the newest first."""
    from instar.app import open_app
    from instar.train import studies

    with open_app(project) as app:
        found = studies.studies(app.store, app.project.name, step)
    if as_json:
        click.echo(json.dumps([studies.document(one) for one in found], indent=2))
    for one in () if as_json else found:
        click.echo(
            f"{one.id}  {one.step:<20} {one.state:<9} {one.started:%Y-%m-%d %H:%M}  {', '.join(one.terms['space'])}"
        )


@studies_group.command("show")
@click.argument("study")
@HTML
@AS_JSON
@click.pass_obj
def show_command(project: str | None, study: str, html: Path | None, as_json: bool) -> None:
    """Show a study: its short list by cost, what matters, all trials in the page."""
    from instar.app import open_app
    from instar.interfaces.tuning.report import report
    from instar.train import studies

    with open_app(project) as app:
        found = studies.get(app.store, study)
        unit = app.project.contract.problem[found.problem].cost.unit
        made = report(app.store, found, app.search(found), unit)
    _show(made, html, as_json)


def _show(report: dict[str, Any], html: Path | None, as_json: bool) -> None:
    if html is not None:
        from instar.interfaces.tuning.page import page

        html.write_text(page(report), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    from instar.interfaces.tuning import terminal

    terminal.print_report(report)
    if html is not None:
        click.echo(f"report with plots: {html}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of shares such as 0.1,0.3", param_hint="--shares") from None


commands: dict[str, click.Command] = {"tune": tune_command, "studies": studies_group}
