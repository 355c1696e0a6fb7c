"""A study on a terminal: a line for each trial while it runs, and tables at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from instar.interfaces.tuning.page import counts, number, said
from instar.interfaces.tuning.report import command

BAR = 24  # letters of the longest bar


def print_report(report: Mapping[str, Any]) -> None:
    """Short list, importances, and how to go on."""
    study = report["study"]
    click.echo(f"{study['id']} of {study['step']}, {study['state']}: {counts(report)}")
    objectives = [one["metric"] for one in study["terms"]["objectives"]]
    trials = {one["number"]: one for one in report["trials"]}
    for place in report["best"]:
        values = zip(objectives, trials[place]["values"], strict=True)
        text = ", ".join(f"{name} {number(value)}" for name, value in values)
        click.echo(f"best by {' and '.join(objectives)}: trial {place}, {text}: {said(trials[place]['parameters'])}")
    if report["shortlist"]:
        _print_shortlist(report)
    for name, share in sorted(report["importances"].items(), key=lambda one: -one[1]):
        click.echo(f"  {name:<24} {'█' * max(1, round(share * BAR)):<{BAR}} {share:.0%} of the spread")
    if report["shortlist"]:
        parameters = {**study["terms"]["fixed"], **report["shortlist"][0]["parameters"]}
        click.echo(f"Next: {command(study, parameters)}")


def _print_shortlist(report: Mapping[str, Any]) -> None:
    click.echo(f"short list by cost, {report['unit']} a row:")
    for one in report["shortlist"]:
        first = one is report["shortlist"][0]
        if first:
            told = "the cheapest"
        elif one["as_good"]:
            told = f"{number(one['more'])} more: cannot be told from the cheapest"
        else:
            told = f"{number(one['more'])} more ({number(one['low'])} to {number(one['high'])})"
        click.echo(f"  trial {one['trial']:<4} {number(one['cost']):>9}  {told}; {said(one['parameters'])}")


def print_trial(place: int, state: str, metrics: Mapping[str, float], objectives: list[str], run: str) -> None:
    """One line of a trial that ended."""
    values = ", ".join(f"{name} {number(metrics[name])}" for name in objectives if name in metrics)
    click.echo(f"trial {place}: {state}{', ' + values if values else ''}  {run}".rstrip())
