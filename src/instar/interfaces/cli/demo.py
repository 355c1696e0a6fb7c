"""`instar demo`: replay a year of real flights round the whole life cycle, and report on it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option("--exit", "leave", is_flag=True, help="End after the report; by default the server stays up.")
@click.option("--quick", is_flag=True, help="March to May only.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as JSON.")
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as one page."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of the server; by default any that is free."
)
@click.pass_obj
def demo_command(
    project: str | None, leave: bool, quick: bool, json_file: Path | None, html_file: Path | None, port: int
) -> None:
    """Replay a year of real flights round the whole life cycle.

    A replay that was stopped goes on where it stopped; one that is over is only reported on again.
    """
    from instar.interfaces.demo.show import run

    run(Path(project) if project else Path.cwd(), leave, quick, json_file, html_file, port)


commands = {"demo": demo_command}
