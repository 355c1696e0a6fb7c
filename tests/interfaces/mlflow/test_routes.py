"""The list of operations: held to the documentation, and what clients learn of the server."""

from __future__ import annotations

import os
import re
from pathlib import Path

from instar.interfaces.mlflow import routes
from instar.interfaces.mlflow.unsupported import REFUSED

PAGE = Path(__file__).parents[3] / "docs" / "mlflow.md"


def test_the_documentation_lists_every_operation_and_every_refusal() -> None:
    """`INSTAR_RENEW_GOLDEN=1` writes both tables anew."""
    text = PAGE.read_text("utf-8")
    operations = [
        f"| {one.method} | {_path(one.root, one.path)} | {(one.handler.__doc__ or '').strip().splitlines()[0]} |"
        for one in routes.all_operations()
    ]
    refusals = [f"| {path} | {reason} |" for path, reason in REFUSED.items()]
    wanted = _with_table(_with_table(text, "## Operations", operations), "## Refused", refusals)
    if os.environ.get("INSTAR_RENEW_GOLDEN"):
        PAGE.write_text(wanted, "utf-8")
    assert PAGE.read_text("utf-8") == wanted


def test_no_address_is_there_twice() -> None:
    table = routes.all_routes()
    assert len({(route.method, re.sub(r"\{\w+", "{", route.path)) for route in table}) == len(table)


def _path(root: str, path: str) -> str:
    return {"mlflow": "", "": "/"}.get(root, f"{root}/") + path


def _with_table(text: str, heading: str, rows: list[str]) -> str:
    """The text with other lines in the table below a heading."""
    before, after = text.split(heading + "\n", 1)
    lead, table, rest = re.match(r"(.*?\n)(\|[^\n]*\n\|[ \-|]*\n)(?:\|[^\n]*\n)*(.*)", after, re.DOTALL).groups()  # type: ignore[union-attr]
    return before + heading + "\n" + lead + table + "".join(row + "\n" for row in rows) + rest
