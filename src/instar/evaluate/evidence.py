"""Gathering what the gates judge: both versions' costs on the same rows, by slice, and the facts of the bundle.

Candidate and champion are compared on rows that neither was fitted or tuned on: rows at or before the end of either fit
are left out, and too few that remain make the verdict undecided. Without a champion the opponent is the better of the two
neutral decisions, yes to everybody or no to everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from instar.core.errors import ContractError
from instar.evaluate.compare import PairedSums
from instar.evaluate.gates import BundleFacts, Evidence, Latency, ParityEvidence, Relation, SliceEvidence
from instar.evaluate.scoring import Scorer
from instar.evaluate.slices import cut_slices
from instar.plan.cost import per_row
from instar.train.bundle import Column, Manifest

if TYPE_CHECKING:
    from instar.plan.project import Problem

# What a value of the endpoint's datatype may be passed on as, beside itself.
_WIDER = {"INT32": {"INT64", "FP64"}, "INT64": {"FP64"}, "FP32": {"FP64"}, "BOOL": set(), "BYTES": set(), "FP64": set()}


@dataclass(frozen=True)
class Judged:
    """The judged rows with everything said about them.

    Attributes:
        rows: Rows with a truth that no judged version was fitted or tuned on.
        y_true: Truth, shape (n,), bool.
        scores: The candidate's scores, shape (n,).
        opponent_scores: The champion's; None without one.
        left_out: Rows left out, by reason.
    """

    rows: pl.DataFrame
    y_true: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]
    opponent_scores: np.ndarray[Any, Any] | None
    left_out: dict[str, int]


def score_both(rows: pl.DataFrame, target: str, event_time: str, candidate: Scorer, champion: Scorer | None) -> Judged:
    """Score the judged rows with candidate and champion.

    Args:
        rows: The judge part of the cut.
        target, event_time: Columns of the truth and of the time that the rows were cut by.

    Raises:
        ContractError: The table lacks one of the columns.
    """
    for column in (target, event_time):
        if column not in rows.columns:
            raise ContractError(
                "the judged table lacks a column", subject=f"column {column!r}", found=", ".join(rows.columns)
            )
    with_truth = rows.filter(pl.col(target).is_not_null())
    fair = _unseen(with_truth, event_time, [s.manifest for s in (candidate, champion) if s is not None])
    left_out = {"no truth": rows.height - with_truth.height, "seen in a fit": with_truth.height - fair.height}
    return Judged(
        fair,
        fair[target].cast(pl.Boolean).to_numpy(),
        candidate.score_rows(fair),
        champion.score_rows(fair) if champion is not None else None,
        {reason: count for reason, count in left_out.items() if count},
    )


def gather(
    problem: Problem,
    judged: Judged,
    candidate: Manifest,
    champion: Manifest | None,
    *,
    champion_name: str = "the champion",
    relation: Relation | None = None,
    endpoint_inputs: Sequence[Column] | None = None,
    latency: Latency | None = None,
    decide_rows: int | None = None,
) -> Evidence:
    """The evidence on a candidate, ready for `gates.judge`.

    Args:
        relation: Overrides what the recipes' digests say.
        endpoint_inputs: Signature of the endpoint; the champion's by default, and without one the candidate sets it.
    """
    own = per_row(problem.cost, judged.y_true, judged.scores >= candidate.threshold)
    if champion is None or judged.opponent_scores is None:
        opponent, against = neutral(problem, judged.y_true)
        relation = relation or "first"
    else:
        opponent = champion_name
        against = per_row(problem.cost, judged.y_true, judged.opponent_scores >= champion.threshold)
        relation = relation or ("refit" if candidate.recipe == champion.recipe else "recipe")
    slices = tuple(
        SliceEvidence(part.column, part.value, PairedSums.of(own[part.index], against[part.index]))
        for part in cut_slices(judged.rows, problem.gates.slices)
    )
    asked = endpoint_inputs if endpoint_inputs is not None else (champion or candidate).inputs
    return Evidence(
        relation=relation,
        opponent=opponent,
        costs=PairedSums.of(own, against),
        unit=problem.cost.unit,
        min_rows=problem.split.min_rows,
        slices=slices,
        facts=facts_of(candidate, asked, latency),
        decide_rows=decide_rows,
    )


def facts_of(manifest: Manifest, endpoint_inputs: Sequence[Column], latency: Latency | None) -> BundleFacts:
    """What is true of a bundle whatever it costs."""
    parity = manifest.parity
    return BundleFacts(
        uncovered(endpoint_inputs, manifest.inputs),
        latency,
        ParityEvidence(**msgspec.structs.asdict(parity)) if parity else None,
    )


def neutral(problem: Problem, y_true: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    """The cheaper of deciding yes and deciding no for everybody: its name, and its cost of each row."""
    always = {
        f"always {word}": per_row(problem.cost, y_true, np.full(len(y_true), word == "yes")) for word in ("no", "yes")
    }
    name = min(always, key=lambda word: float(always[word].sum()))
    return name, always[name]


def uncovered(endpoint: Sequence[Column], candidate: Sequence[Column]) -> tuple[str, ...]:
    """Where calls that the endpoint's signature allows could not be answered by the candidate, in words; empty if nowhere."""
    promised = {column.name: column for column in endpoint}
    problems = []
    for column in candidate:
        given = promised.get(column.name)
        if given is None:
            problems.append(f"it asks for input {column.name}, which callers of the endpoint do not send")
        elif given.datatype != column.datatype and column.datatype not in _WIDER.get(given.datatype, set()):
            problems.append(f"it asks for {column.name} as {column.datatype}, the endpoint takes {given.datatype}")
        elif given.nullable and not column.nullable:
            problems.append(f"it needs a value for {column.name}, which callers of the endpoint may leave out")
    return tuple(problems)


def _unseen(rows: pl.DataFrame, event_time: str, manifests: Sequence[Manifest]) -> pl.DataFrame:
    ends = [_instant(manifest.fitted_until) for manifest in manifests if manifest.fitted_until]
    if not ends:
        return rows
    times = pl.col(event_time).cast(pl.Datetime("us")) if rows.schema[event_time] == pl.Date else pl.col(event_time)
    naive = getattr(rows.schema[event_time], "time_zone", None) is None
    end = max(ends)
    return rows.filter(times > pl.lit(end.replace(tzinfo=None) if naive else end))


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
