"""`instar reproduce` makes a run again and says whether it is the same; `instar env` shows and builds environments."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.groups import Group

if TYPE_CHECKING:
    from instar.core.store import Store
    from instar.train.reproductions import Reproduction

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
SHOWN_METRICS = 8
DIFFERENT_STATUS = 1


@click.command("reproduce")
@click.argument("run")
@click.option(
    "--tolerance", type=click.FloatRange(0.0), default=1e-6, show_default=True,
    help="Within which predictions (absolute) and metrics (relative) are equal.",
)  # fmt: skip
@click.option("--here", is_flag=True, help="In the running environment instead of the run's own.")
@click.option("--newest", is_flag=True, help="On the newest versions of its inputs instead of those it read.")
@click.option("--in-ci", is_flag=True, help="End with status 1 when it comes out different.")
@AS_JSON
@click.pass_obj
def reproduce_command(
    project: str | None, run: str, tolerance: float, here: bool, newest: bool, in_ci: bool, as_json: bool
) -> None:
    """Make RUN again from its own code, environment and inputs; say identical, equal, or different and why."""
    from instar.app import open_app
    from instar.operate.reproduce import reproduce

    with open_app(project, need_project=False, make=False) as app:
        made = reproduce(
            app.store, app.root, run, tolerance=tolerance, here=here, newest=newest,
            tell=lambda text: click.echo(text, err=True),
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(made.document(), indent=2))
    else:
        _print(made)
    if in_ci and made.verdict == "different":
        sys.exit(DIFFERENT_STATUS)


def _print(made: Reproduction) -> None:
    click.echo(f"{made.verdict}: {_SAYS[made.verdict].format(tolerance=made.comparison.tolerance)}")
    found = made.comparison
    if found.predictions is not None:
        click.echo(f"  predictions differ by at most {found.predictions:.3g}")
    for name, (was, now) in list(found.metrics.items())[:SHOWN_METRICS]:
        click.echo(f"  {name} was {_cell(was)} and is {_cell(now)}")
    if len(found.metrics) > SHOWN_METRICS:
        click.echo(f"  and {len(found.metrics) - SHOWN_METRICS} more metrics")
    if made.verdict == "different" and found.digests:
        click.echo(f"  not the same: {', '.join(list(found.digests)[:SHOWN_METRICS])}")
    for number, cause in enumerate(made.causes):
        click.echo(f"{'first cause' if number == 0 else 'also'}: {cause.text}")
    for note in made.notes:
        click.echo(f"note: {note}")
    click.echo(f"on the record as {made.repetition}, by {made.by}, after {made.seconds:.1f} s")


_SAYS = {
    "identical": "the same model, byte for byte, and the same metrics",
    "equal": "the same within {tolerance:g}, though not byte for byte",
    "different": "it did not come out the same",
}


def _cell(value: float | None) -> str:
    return "not there" if value is None else f"{value:.9g}"


@click.group("env", cls=Group)
def env_group() -> None:
    """Environments of runs and bundles: list them, show a lock, build one ahead of time."""


@env_group.command("ls")
@AS_JSON
@click.pass_obj
def env_list(project: str | None, as_json: bool) -> None:
    """List the environments that are ready in this store."""
    from instar.app import open_app
    from instar.train import environments

    with open_app(project, need_project=False, make=False) as app:
        rows: list[dict[str, Any]] = [
            {
                "environment": one.digest, "python": one.python, "by": one.by, "seconds": one.seconds,
                "created": one.created.isoformat(),
                "last_used": environments.last_used(app.store, one.digest).isoformat(),
                "own_bytes": environments.own_bytes(app.store, one.digest),
                "distributions": app.store.blobs.get(one.requirements).count(b"\n")
                if app.store.blobs.has(one.requirements) else None,
            }
            for one in environments.listing(app.store)
        ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        size = f"{row['own_bytes'] / 1e6:.1f} MB of its own"
        click.echo(
            f"{row['environment'][:15]}  Python {row['python']}  {row['distributions']} distributions  {size}  "
            f"used {row['last_used'][:16]}"
        )
    if not rows:
        click.echo("no environments yet; one is built when a run is reproduced: instar reproduce RUN")


@env_group.command("show")
@click.argument("name", metavar="RUN|BUNDLE")
@AS_JSON
@click.pass_obj
def env_show(project: str | None, name: str, as_json: bool) -> None:
    """Print the hashed lock of a run's or a bundle's environment."""
    from instar.app import open_app
    from instar.train import environment, locks

    with open_app(project, need_project=False, make=False) as app:
        described = _environment_of(app.store, name)
        lock = locks.lock_of(app.store, described)
        text = app.store.blobs.get(lock.requirements).decode()
        about = environment.load(app.store.blobs, described)
    if as_json:
        document = {"environment": described, "python": about.python, "lock": lock.requirements, "text": text}
        click.echo(json.dumps({**document, "unhashed": lock.unhashed, "folders": lock.folders}, indent=2))
    else:
        click.echo(f"# Python {about.python}, {about.system} {about.machine}")
        click.echo(text, nl=False)


@env_group.command("build")
@click.argument("name", metavar="RUN|BUNDLE")
@AS_JSON
@click.pass_obj
def env_build(project: str | None, name: str, as_json: bool) -> None:
    """Have the environment of a run or a bundle ready; prints the path of its Python."""
    from instar.app import open_app
    from instar.train import environments

    with open_app(project, need_project=False, make=False) as app:
        described = _environment_of(app.store, name)
        with environments.use(app.store, described, tell=lambda text: click.echo(text, err=True)) as found:
            document = {"environment": found.digest, "python": found.python, "notes": list(found.notes)}
    click.echo(json.dumps(document, indent=2) if as_json else found.python)


def _environment_of(store: Store, name: str) -> str:
    from instar.core.errors import NotFound
    from instar.train import bundle, runs

    if name.startswith("b3:"):
        return bundle.load_manifest(store.blobs, name).environment
    run = runs.get_run(store, name)
    if run.environment is None:
        raise NotFound("its environment was not recorded", subject=f"run {run.id}")
    return run.environment


commands: dict[str, click.Command] = {"reproduce": reproduce_command, "env": env_group}
