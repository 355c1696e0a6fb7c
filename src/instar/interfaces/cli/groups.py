"""A group of commands whose help says each command's whole first sentence, when somebody looks for the one to use."""

from __future__ import annotations

import click

LONGEST = 400  # letters of a first sentence; click cuts at 45


class Group(click.Group):
    """As click's, in the order in which the commands were written: that of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(LONGEST)) for name, one in self.commands.items() if not one.hidden]
            )
