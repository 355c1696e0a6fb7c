"""The commands that run a pipeline: `instar run` walks it round, once or whenever a file changes, `logs` shows its output."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

import click

from instar.interfaces.cli.plan import AS_JSON, read_parameters

if TYPE_CHECKING:
    from instar.app import App
    from instar.operate.cycle import Turn
    from instar.plan.runner import Event, StepStatus


@dataclass(frozen=True)
class Asked:
    """What the options of `instar run` ask for."""

    steps: Mapping[str, Any]
    parameters: Mapping[str, object]
    terms: Mapping[str | None, Mapping[str, Any]]
    jobs: int
    keep_going: bool
    verbose: bool
    logs: bool


@click.command("run")
@click.option(
    "--target", "targets", multiple=True, metavar="STEP", help="Only this step and what it needs; repeatable."
)
@click.option("--from", "start", multiple=True, metavar="STEP", help="Only this step and what follows; repeatable.")
@click.option("--until", multiple=True, metavar="STEP", help="Only up to this step; repeatable.")
@click.option("--force", multiple=True, metavar="STEP", help="Run this step although its result is known; repeatable.")
@click.option("-S", "--set", "given", multiple=True, metavar="STEP.PARAMETER=VALUE", help="A parameter; repeatable.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, help="Steps at once; default 1.")
@click.option("--retries", multiple=True, metavar="[STEP=]N", help="Try failed steps again so often; repeatable.")
@click.option("--retry-after", multiple=True, metavar="[STEP=]TIME", help="Wait before that, as 10s; repeatable.")
@click.option("--timeout", multiple=True, metavar="[STEP=]TIME", help="Longest time of a step, as 5m; repeatable.")
@click.option("--keep-going", is_flag=True, help="After a failure go on with what does not depend on it.")
@click.option("--dry-run", is_flag=True, help="Say what would run and why, and do nothing.")
@click.option("--watch", is_flag=True, help="Run again whenever a file of the project changes, until interrupted.")
@click.option("-v", "--verbose", is_flag=True, help="Show what steps print, while they do.")
@click.option("--no-logs", is_flag=True, help="Leave the output of steps alone, for a debugger.")
@AS_JSON
@click.pass_obj
def run(
    folder: str | None,
    targets: tuple[str, ...],
    start: tuple[str, ...],
    until: tuple[str, ...],
    force: tuple[str, ...],
    given: tuple[str, ...],
    jobs: int,
    retries: tuple[str, ...],
    retry_after: tuple[str, ...],
    timeout: tuple[str, ...],
    keep_going: bool,
    dry_run: bool,
    watch: bool,
    verbose: bool,
    no_logs: bool,
    as_json: bool,
) -> None:
    """Run the steps whose code or inputs changed; judge and route the models that came of it."""
    from instar.app import open_app
    from instar.plan.terms import asked_terms

    if watch and (dry_run or as_json):
        raise click.UsageError("--watch goes on until it is interrupted: leave out --dry-run and --json")
    if no_logs and (verbose or jobs > 1 or timeout):
        raise click.UsageError("--no-logs leaves one step the terminal: leave out --verbose, --jobs and --timeout")
    steps = {"targets": targets or None, "start": start, "until": until, "force": force}
    terms = asked_terms({"retries": retries, "retry_after": retry_after, "timeout": timeout})
    asked = Asked(steps, read_parameters(given), terms, jobs, keep_going, verbose, not no_logs)
    if watch:
        from instar.interfaces.cli.watch import watch_project

        with _terminal() as out:
            watch_project(folder, lambda app: _turn(app, asked, out, as_json=False))
        return
    with open_app(folder) as app, _terminal() as out:
        if dry_run:
            _dry_run(app, asked, as_json)
        else:
            _turn(app, asked, out, as_json)


@click.command("logs")
@click.argument("name", metavar="STEP|EXECUTION")
@click.option("-f", "--follow", is_flag=True, help="Go on while it runs.")
@AS_JSON
@click.pass_obj
def logs(folder: str | None, name: str, follow: bool, as_json: bool) -> None:
    """Show what a step printed the last time, or one execution of it."""
    from instar.app import open_app
    from instar.plan import logs as found_logs
    from instar.plan import output

    with open_app(folder) as app:
        found = found_logs.find(app.store, app.project.name, name)
        if as_json:
            texts = [(one, output.read(app.store, one.id, one.log)) for one in found]
            click.echo(json.dumps([_log_record(one, text) for one, text in texts], indent=2))
            return
        if follow:
            for text in found_logs.follow(app.store, found[-1]):
                click.echo(text, nl=False)
            return
        for one in found:
            if len(found) > 1:
                click.echo(f"--- {_title(one)}")
            text = output.read(app.store, one.id, one.log)
            click.echo(text, nl=not text.endswith("\n") if text else False)
            if not text:
                click.echo(f"{_title(one)} printed nothing", err=True)


def _turn(app: App, asked: Asked, out: TextIO, as_json: bool) -> None:
    from instar.operate.cycle import turn
    from instar.plan.runner import Manner

    manner = Manner(
        jobs=asked.jobs,
        keep_going=asked.keep_going,
        logs=asked.logs,
        whole_process=out is not sys.stdout,
        follow=asked.verbose and not as_json,
    )
    tell = None if as_json else functools.partial(show, out=out, several=asked.keep_going or asked.jobs > 1)
    loop = replace(app.loop(), pipeline=app.pipeline.on_terms(asked.terms))
    made = turn(loop, parameters=asked.parameters, on_event=tell, manner=manner, **asked.steps)
    if as_json:
        click.echo(json.dumps(_turn_record(made), indent=2), file=out)
    else:
        _print_turn(made, out)


def _dry_run(app: App, asked: Asked, as_json: bool) -> None:
    from instar.plan.selection import choose
    from instar.plan.why import survey

    steps = dict(asked.steps)
    app.pipeline.on_terms(asked.terms)  # which steps it names is told here, too
    chosen = choose(app.pipeline, steps.pop("targets"), **steps)
    found = survey(
        app.store, app.project, app.pipeline, app.kinds(), chosen.order, asked.parameters,
        taken=chosen.taken, force=asked.steps["force"],
    )  # fmt: skip
    if as_json:
        document = {
            "project": app.project.name,
            "contract": app.project.revision,
            "dry_run": True,
            "steps": [{**one.record(), "would": _would(one)} for one in found.values()],
        }
        click.echo(json.dumps(document, indent=2))
        return
    for one in found.values():
        click.echo(f"{one.step} {_would(one)}" + (":" if one.would_run else ""))
        for reason in one.reasons if one.would_run else ():
            click.echo(f"  {reason.text}")
    count = sum(one.would_run for one in found.values())
    click.echo(f"{count} of {len(found)} steps would run; nothing was done")


def _would(one: StepStatus) -> str:
    """What a run would do with a step. One whose input comes out equal is spared after all."""
    if one.state == "empty":
        return "has no rows yet, and a run would stop there"
    if not one.would_run:
        return "has landed" if one.state == "landed" else "is current"
    return "may run" if all(reason.what == "upstream" for reason in one.reasons) else "would run"


@contextlib.contextmanager
def _terminal() -> Iterator[TextIO]:
    """Where progress is shown, while what steps print goes elsewhere: standard output by another number, if it has one."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        number = -1
    if number != 1:
        yield sys.stdout
        return
    sys.stdout.flush()
    with os.fdopen(os.dup(number), "w", encoding=sys.stdout.encoding, errors="replace") as out:
        yield out


def show(event: Event, out: TextIO | None = None, *, several: bool = False) -> None:
    """One line for each thing that happened, so that a log of it reads like the work.

    Args:
        several: More than one step may fail, so each says why at once.
    """
    if event.state in ("waiting", "resuming"):
        click.echo(event.detail, file=out)
        return
    part = "" if event.partition is None else f" {event.partition or '(none)'}"
    place = f"[{event.number}/{event.total}] {event.step}{part}"
    if event.state == "started":
        click.echo(f"{place} runs: {event.detail}{_left(event)}", file=out)
    elif event.state == "done":
        click.echo(f"{place} done in {event.seconds:.2f} s", file=out)
    elif event.state == "failed":
        click.echo(f"{place} failed" + (f": {event.detail}" if several else ""), err=True)
    elif event.state == "output":
        click.echo(f"{event.step}{part} | {event.detail}", file=out)
    elif event.detail:
        click.echo(f"{place} {event.state}: {event.detail}", file=out)
    else:
        click.echo(f"{place} {event.state}", file=out)


def _left(event: Event) -> str:
    from instar.plan.terms import spoken

    return f" (about {spoken(event.left)} left)" if event.left is not None and event.left >= 1 else ""


def _print_turn(made: Turn, out: TextIO) -> None:
    ran = made.walk.ran()
    words = f"{len(ran)} of {len(made.walk.steps)} steps ran" + (f": {', '.join(ran)}" if ran else "")
    click.echo(words, file=out)
    for one in made.proposals:
        click.echo(f"{one.problem}: {one.candidate.name} {one.outcome}: {one.reason}", file=out)


def _turn_record(made: Turn) -> dict[str, Any]:
    return {
        "id": made.walk.id,
        "contract": made.walk.contract,
        "steps": [asdict(one) for one in made.walk.steps],
        "proposals": [
            {
                "problem": one.problem,
                "outcome": one.outcome,
                "judged": one.judged.name,
                "candidate": one.candidate.name,
                "evaluation": one.evaluation.id if one.evaluation else None,
                "reason": one.reason,
            }
            for one in made.proposals
        ],
    }


def _title(one: Any) -> str:
    part = "" if one.partition is None else f" {one.partition or '(none)'}"
    return f"{one.step}{part}, attempt {one.attempt}, {one.state}, {one.id}"


def _log_record(one: Any, text: str) -> dict[str, Any]:
    return {
        "execution": one.id,
        "step": one.step,
        "partition": one.partition,
        "attempt": one.attempt,
        "state": one.state,
        "error": one.error,
        "log": text,
    }


commands: dict[str, click.Command] = {"run": run, "logs": logs}
