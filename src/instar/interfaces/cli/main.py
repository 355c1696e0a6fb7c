"""The command `instar`: finds the command's stage, loads only that, and turns errors into clear ends.

Exit status: 0 done, 1 it failed, 2 wrong usage or input, 3 it needs somebody or something else first, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from instar.core import errors, silence

# Command, its stage's file, and one line of help, in the order of the life cycle: listed here so that
# `instar --help` need not load a single stage.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("plan", "Make a small working project in this folder."),
    "run": ("run", "Walk the pipeline: run the steps whose code or inputs changed."),
    "logs": ("run", "Show what a step printed."),
    "why": ("plan", "Say why a step would run, or would not."),
    "status": ("plan", "Show the project's steps and what is current."),
    "ingest": ("data", "Land files in a bronze table."),
    "data": ("data", "List, show and compare table versions."),
    "runs": ("train", "List and show runs."),
    "experiments": ("experiments", "List, make, move and delete experiments."),
    "tune": ("tune", "Search the parameters of a model step."),
    "studies": ("tune", "List and show studies of tuning."),
    "reproduce": ("reproduce", "Make a run again, and say whether it is the same."),
    "env": ("reproduce", "List, show and build environments of runs."),
    "evaluate": ("release", "Judge a model version by the gates of its problem."),
    "models": ("release", "List and show model versions and their cards."),
    "check-runtime": ("runtimes", "Hold a program that serves a model to the protocol."),
    "approve": ("release", "Approve a model version on its evidence."),
    "apply": ("operate", "Put the state of instar.toml into effect."),
    "schedule": ("schedule", "Show and run the schedules of instar.toml."),
    "up": ("serve", "Serve everything on one port."),
    "predict": ("predict", "Ask an endpoint for a prediction."),
    "cost": ("cost", "Say what each version costs to serve."),
    "promote": ("operate", "Make a model version the champion."),
    "route": ("route", "Show and change the traffic of an endpoint: weights, rules, shadows."),
    "rollback": ("operate", "Return to the champion before."),
    "live": ("operate", "Say what answers, now or at a time."),
    "trace": ("operate", "Follow a record back to its causes, or forward to its effects."),
    "audit": ("audit", "Search and verify the record, anchor its head, erase a person."),
    "note": ("notes", "Write and read notes on records."),
    "token": ("access", "Make, change, list and revoke tokens."),
    "whoami": ("access", "Say who one is, and what one may do."),
    "gc": ("garbage", "Remove for good what was deleted, and what no record names."),
    "demo": ("demo", "Replay a year of real flights round the whole life cycle."),
}


class LifeCycle(click.Group):
    """The group of all commands; a command's module is imported only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        stage, _ = COMMANDS[cmd_name]
        module = importlib.import_module(f"instar.interfaces.cli.{stage}")
        command: click.Command = module.commands[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands, in the order of the life cycle"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}{_nearest(args[0])}")
        return super().resolve_command(ctx, args)


@click.group(cls=LifeCycle, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="instar")
@click.option("--project", type=click.Path(file_okay=False), default=None, help="The project's folder; default here.")
@click.pass_context
def cli(ctx: click.Context, project: str | None) -> None:
    """Instar: the whole machine-learning life cycle on one record."""
    ctx.obj = project


def main() -> None:
    """Run the command line and leave the process with its exit status."""
    # Threads of a fit that spin while they wait for each other take the processors from a server beside them: on two busy
    # cores a fit then takes ten times as long. OpenMP reads it when the first model is fitted, here or in a child.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    silence.keep_silence()
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what was recorded stays, and the same command continues", err=True)
        sys.exit(130)
    except errors.InstarError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(exit_status(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        click.echo(
            f"StoreFull: {error.filename or 'a file'}: no room is left on its disk.\nNext: Make room there, then try again.",
            err=True,
        )
        sys.exit(1)


def exit_status(error: errors.InstarError) -> int:
    """The exit status which tells a script what kind of failure it was."""
    if isinstance(error, errors.BadInput | errors.NotFound):
        return 2
    return 3 if isinstance(error, errors.Blocked) else 1


def _nearest(word: str) -> str:
    import difflib

    close = difflib.get_close_matches(word, COMMANDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


if __name__ == "__main__":
    main()
