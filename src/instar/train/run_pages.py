"""Pages of runs for those who pass thousands of them on, whenever results are compared: rows, and JSON made by the database.

`run_records.load` makes records to work with. Here nothing is made of a run: what it is stays the driver's row, and the texts
that it logged are one JSON text a run, which nobody reads on its way:

    parameters(tx, [7])     # {7: '[{"key":"depth","value":"3"},{"key":"model","value":"trees"}]'}
"""

from __future__ import annotations

from collections.abc import Sequence

from instar.core.database import Transaction, fetch

# key, id, experiment's id, name, step, state, lifecycle, actor, user, started and ended in microseconds, inputs as JSON
HeadRow = tuple[int, str, str, str, str | None, str, str, str, str | None, int, int | None, str]

_HEAD = "key, id, experiment_id, name, step, state, lifecycle, actor, user_name, started, ended, inputs"
_VALUE = "value || coalesce(rest, '')"
# SQLite meets the rows in the order of their key, which is (run, name).
_PAIRS = {
    "sqlite": f"json_group_array(json_object('key', name, 'value', {_VALUE}))",
    "postgresql": f"CAST(json_agg(json_build_object('key', name, 'value', {_VALUE}) ORDER BY name) AS text)",
}


def heads(tx: Transaction, keys: Sequence[int]) -> list[HeadRow]:
    """What the runs of those keys are, in that order."""
    if not keys:
        return []
    found = {row[0]: row for row in fetch(tx, f"SELECT {_HEAD} FROM run WHERE key IN ({chosen(keys)})")}
    return [found[key] for key in keys if key in found]


def parameters(tx: Transaction, keys: Sequence[int]) -> dict[int, str]:
    """Parameters as texts, as a JSON list of `{"key": …, "value": …}` by run; a run without any is left out."""
    if not keys:
        return {}
    pairs = _PAIRS[tx.dialect.name]
    return dict(fetch(tx, f"SELECT run, {pairs} FROM run_parameter WHERE run IN ({chosen(keys)}) GROUP BY run"))


def tags(tx: Transaction, keys: Sequence[int], one: str) -> dict[int, tuple[str, str | None]]:
    """Tags in the same form, and beside them the value of `one` of them: None where the run does not have it."""
    if not keys:
        return {}
    query = (
        f"SELECT run, {_PAIRS[tx.dialect.name]}, max(CASE WHEN name = ? THEN {_VALUE} END)"
        f" FROM run_tag WHERE run IN ({chosen(keys)}) GROUP BY run"
    )
    return {run: (text, value) for run, text, value in fetch(tx, query, (one,))}


def chosen(keys: Sequence[int]) -> str:
    """Keys as they stand in a list of SQL: our own numbers are safe to write out, and quicker than to bind."""
    return ",".join(map(str, keys))
