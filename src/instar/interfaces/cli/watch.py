"""Watching a project: `instar run --watch` runs what changed whenever a file of the project does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from instar.app import App, open_app
from instar.core.errors import InstarError
from instar.plan.project import find_root
from instar.plan.watched import declared, matters

DEBOUNCE_MS = 300  # editors write a file in several steps
FIRST_MS = 50  # until the first run, when the watcher is known to be at work


def watch_project(folder: str | None, turn: Callable[[App], None]) -> None:
    """Turn once, and again after each change, until interrupted; what fails is said, and ends nothing.

    Args:
        folder: The project's folder, or one within; None: here.
        turn: Runs the pipeline of an app that was opened afresh.
    """
    from watchfiles import watch

    root = find_root(Path(folder) if folder is not None else Path.cwd())
    patterns: tuple[str, ...] = ()

    def wanted(_: object, path: str) -> bool:
        return matters(root, Path(path), patterns)

    # Watching begins before the first run, so that an edit during it is not missed.
    watcher = watch(
        root, watch_filter=wanted, debounce=DEBOUNCE_MS, step=FIRST_MS, rust_timeout=FIRST_MS, yield_on_timeout=True
    )
    first = True
    for changes in watcher:
        if not changes and not first:
            continue
        if changes:
            click.echo("changed: " + ", ".join(sorted({Path(path).name for _, path in changes})))
        first = False
        patterns = _once(root, turn, patterns)
        click.echo("watching; Ctrl-C ends it")


def _once(root: Path, turn: Callable[[App], None], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """One turn; returns the patterns of declared files, as known from now on."""
    try:
        with open_app(root) as app:
            patterns = declared(app.pipeline)
            turn(app)
    except InstarError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
    return patterns
