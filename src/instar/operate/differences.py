"""Where two versions of an endpoint differ, on the same calls: read from the prediction log while a shadow or a canary runs.

A shadow answers what the champion answers, so the two are compared in pairs: how often they decide otherwise, how far their
scores are apart, in which parts of the traffic, and on which calls most. Which of the two is right is not asked here: that
takes outcomes, and is the rollout's question.

    report = compare(store, log, "delay", 3, 5, since=yesterday)
    report.disagreement.mean            # 0.031: on 3 % of the calls the other decision
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import Any

import polars as pl

from instar.core.errors import BadInput
from instar.evaluate.compare import LEVEL, Interval
from instar.operate.output_pairs import output_pairs
from instar.operate.pairing import SERVER_FAULT, PredictionLog, answers_of
from instar.serve.traffic.policy import Policy

SPAN = timedelta(days=7)  # event time, where nobody says since when
MOST_SLICES = 20  # of one column; the rest is in the whole
MOST_WORST = 20
FEWEST_ROWS = 10  # of a slice that is shown
MOST_VALUES = 50  # that a column of numbers may have to be one of categories


@dataclass(frozen=True)
class Said:
    """What one version said in the window.

    Attributes:
        asked: Predictions that it was asked for; on `failed` of them it failed.
        returned: Predictions for which its answer was the caller's.
        positive: Share of its decisions that are 1; NaN without decisions.
        latency_ms: Of calls that it answered, at the median and at the 99th of 100; NaN where it answered none.
    """

    version: int
    asked: int
    failed: int
    returned: int
    positive: float
    mean_score: float
    latency_ms: tuple[float, float]


@dataclass(frozen=True)
class Part:
    """Pairs of one part of the traffic.

    Attributes:
        disagree: Those with different decisions.
        disagreement: Their share.
        difference: Mean of the second version's score less the first's.
    """

    name: str
    pairs: int
    disagree: int
    disagreement: Interval
    difference: Interval


@dataclass(frozen=True)
class Worst:
    """A prediction on which the two are far apart; of tensors the two values that are farthest, null where none is a number."""

    prediction: str
    at: datetime
    scores: tuple[float | None, float | None]
    decisions: tuple[int | None, int | None]


@dataclass(frozen=True)
class Differences:
    """Two versions side by side, with intervals of 95 %, which take rows as independent.

    Attributes:
        since, until: Event time.
        whole: All pairs; `pairs` is 0 where no call was answered by both.
        slices: Parts by the value of an input, the largest disagreement first within a column.
        worst: Where scores differ most.
        note: What could not be compared, and why.
    """

    endpoint: str
    since: datetime | None
    until: datetime
    versions: tuple[Said, Said]
    whole: Part
    apart: float
    slices: tuple[Part, ...]
    worst: tuple[Worst, ...]
    note: str = ""


def two_versions(policy: Policy, named: Sequence[int]) -> tuple[int, int]:
    """The versions to compare: those named, or the champion and who answers beside it.

    Raises:
        BadInput: There are not two.
    """
    if len(named) == 2:
        return named[0], named[1]
    beside = [policy.canary.version] if policy.canary is not None else []
    beside += [one.version for one in policy.shadows]
    if named or policy.champion is None or not beside:
        raise BadInput(
            "two versions are compared", subject=f"endpoint {policy.endpoint}",
            found=", ".join(map(str, named)) or "no shadow or canary beside the champion",
            asked="two version numbers",
        )  # fmt: skip
    return policy.champion, beside[0]


def compare(
    log: PredictionLog,
    endpoint: str,
    first: int,
    second: int,
    *,
    since: datetime | None,
    until: datetime,
    by: Sequence[str] = (),
) -> Differences:
    """Compare two versions on all predictions in [since, until), event time.

    Args:
        by: Inputs by whose values the pairs are parted; none takes those of text and of few values.

    Raises:
        BadInput: The two are one, or the endpoint has no such input.
    """
    if first == second:
        raise BadInput("a version does not differ from itself", subject=f"endpoint {endpoint}", found=first)
    frame = log.read(endpoint, since, until)
    inputs = _inputs(frame)
    unknown = [name for name in by if name not in inputs]
    if unknown and frame.height:
        raise BadInput(
            "its calls have no such input", subject=f"endpoint {endpoint}", found=unknown[0], asked=", ".join(inputs)
        )
    one, other = answers_of(frame, first), answers_of(frame, second)
    pairs = (
        one.drop_nulls("score")
        .select("prediction", "at", a="score", a_decision="decision")
        .join(other.drop_nulls("score").select("prediction", b="score", b_decision="decision"), on="prediction")
        .with_columns(difference=pl.col("b") - pl.col("a"), differs=pl.col("a_decision") != pl.col("b_decision"))
        .sort("at", "prediction")
    )
    by_outputs = pairs.is_empty()
    if by_outputs:
        pairs = output_pairs(frame, first, second)
    slices = _slices(frame, pairs, [name for name in (by or inputs) if name in inputs], chosen=bool(by))
    return Differences(
        endpoint, since, until, (_said(frame, one, first), _said(frame, other, second)), _part("all", pairs),
        _mean(pairs["difference"].abs()), slices, _worst(pairs), _note({first: one, second: other}, pairs, by_outputs),
    )  # fmt: skip


def _said(frame: pl.DataFrame, said: pl.DataFrame, version: int) -> Said:
    own = frame.filter(pl.col("version") == version)
    dead = own.filter(
        pl.col("status") >= SERVER_FAULT, ~pl.col("prediction").is_in(said["prediction"].implode())
    ).height
    answered = own.filter(pl.col("status") < 400)
    calls = answered.unique("call")["latency_us"] if answered.height else pl.Series([], dtype=pl.Int64)
    scores = said["score"].drop_nulls().cast(pl.Float64)
    return Said(
        version, said.height + dead, said.height - said["error"].null_count() + dead, answered.height, _mean(said["decision"]),
        _mean(scores), (_quantile(calls, 0.5) / 1000, _quantile(calls, 0.99) / 1000),
    )  # fmt: skip


def _part(name: str, pairs: pl.DataFrame) -> Part:
    n, decided = pairs.height, pairs["differs"].drop_nulls()
    disagree = int(decided.sum() or 0)
    mean = _mean(pairs["difference"])
    spread = _float(pairs["difference"].std())
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * spread / math.sqrt(n) if n > 1 else math.inf
    low, high = wilson(disagree, len(decided))
    share = disagree / len(decided) if len(decided) else math.nan
    return Part(
        name, n, disagree, Interval(share, low, high, len(decided)), Interval(mean, mean - half, mean + half, n)
    )


def wilson(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a share.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    if not n:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _inputs(frame: pl.DataFrame) -> list[str]:
    kind = frame.schema.get("inputs")
    return [one.name for one in kind.fields] if isinstance(kind, pl.Struct) else []


def _slices(frame: pl.DataFrame, pairs: pl.DataFrame, columns: Sequence[str], *, chosen: bool) -> tuple[Part, ...]:
    found: list[Part] = []
    if not pairs.height:
        return ()
    for name in columns:
        values = frame.select("prediction", _slice=pl.col("inputs").struct.field(name))
        kind = values.schema["_slice"]
        if isinstance(kind, pl.Struct):
            data = pl.col("_slice").struct.field("data")
            if values.select(data.list.len().max()).item() != 1:
                if chosen:
                    raise BadInput(
                        "calls cannot be parted by a tensor of several values a row", subject=f"input {name}"
                    )
                continue
            values = values.with_columns(_slice=data.list.first())
            kind = values.schema["_slice"]
        if not chosen and not (kind in (pl.String, pl.Boolean) or values["_slice"].n_unique() <= MOST_VALUES):
            continue
        if kind.is_numeric() and values["_slice"].n_unique() > MOST_VALUES:
            values = values.with_columns(pl.col("_slice").qcut(4, allow_duplicates=True).cast(pl.String))
        parted = pairs.join(values, on="prediction")
        parts = [
            _part(f"{name}={'(missing)' if value is None else value}", rows)
            for (value,), rows in parted.group_by("_slice", maintain_order=True)
            if rows.height >= FEWEST_ROWS
        ]
        if len(parts) > 1:
            parts.sort(
                key=lambda part: (-_number(part.disagreement.mean), -abs(_number(part.difference.mean)), part.name)
            )
            found += parts[:MOST_SLICES]
    return tuple(found)


def _worst(pairs: pl.DataFrame) -> tuple[Worst, ...]:
    known = pairs.filter(pl.col("difference").is_not_null() | pl.col("differs").fill_null(False))
    rows = known.sort(pl.col("difference").abs(), descending=True, nulls_last=True, maintain_order=True).head(
        MOST_WORST
    )
    return tuple(
        Worst(row["prediction"], row["at"], (row["a"], row["b"]), (row["a_decision"], row["b_decision"]))
        for row in rows.iter_rows(named=True)
    )


def _note(said: Mapping[int, pl.DataFrame], pairs: pl.DataFrame, by_outputs: bool) -> str:
    for version, rows in said.items():
        if not rows.height:
            return f"version {version} was asked for nothing in this time: make it a shadow, and there are pairs"
    if pairs.is_empty():
        return "no call was answered by both: arms share the calls, and only a shadow or a canary answers the same ones"
    if by_outputs:
        return (
            "they answer with tensors: text, whole numbers and truth values count as decisions, and of other numbers how far "
            "apart the two are where they are farthest"
        )
    return ""


def document(found: Differences) -> dict[str, Any]:
    """A comparison as JSON values; what is not a number is null."""
    return {
        "endpoint": found.endpoint,
        "since": found.since.isoformat() if found.since is not None else None,
        "until": found.until.isoformat(),
        "versions": [
            {**vars(one), "positive": _json(one.positive), "mean_score": _json(one.mean_score),
             "latency_ms": {"p50": _json(one.latency_ms[0]), "p99": _json(one.latency_ms[1])}}
            for one in found.versions
        ],
        "whole": _part_document(found.whole),
        "mean_absolute_difference": _json(found.apart),
        "slices": [_part_document(part) for part in found.slices],
        "worst": [{**vars(one), "at": one.at.isoformat()} for one in found.worst],
        "note": found.note,
    }  # fmt: skip


def _part_document(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "pairs": part.pairs,
        "disagree": part.disagree,
        "disagreement": _interval(part.disagreement),
        "difference": _interval(part.difference),
    }


def _interval(one: Interval) -> dict[str, Any]:
    return {"mean": _json(one.mean), "low": _json(one.low), "high": _json(one.high), "n": one.n, "level": one.level}


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: pl.Series) -> float:
    return _float(values.cast(pl.Float64).mean())


def _float(found: Any) -> float:
    return float(found) if isinstance(found, int | float) else math.nan


def _quantile(values: pl.Series, share: float) -> float:
    found = values.quantile(share, "higher")
    return float(found) if found is not None else math.nan


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) else value
