"""The demo's figures come out of the log as they were put in, and the report shows them all."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from instar.interfaces.demo import figures, page, plots, report, terminal
from instar.interfaces.demo.figures import Standing
from instar.interfaces.demo.report import Event
from instar.plan.cost import Cost

COST = Cost(false_negative=3.0, false_positive=1.0, unit="EUR")
MARCH = datetime(2013, 3, 1, 12, tzinfo=UTC)
STANDING = [
    Standing("rule", 1, MARCH),
    Standing("frozen", 2, MARCH),
    Standing("monthly", 2, MARCH),
    Standing("monthly", 3, datetime(2013, 4, 1, 12, tzinfo=UTC)),
]
ANSWER = pl.Struct(
    {"version": pl.Int64, "role": pl.String, "score": pl.Float64, "decision": pl.Int64, "threshold": pl.Float64}
)


def call(number: int, at: datetime, version: int, decisions: dict[int, int], truth: float | None, **more: Any) -> Any:
    answers = [
        {"version": one, "role": "x", "score": 0.25 + decision / 2, "decision": decision, "threshold": 0.25}
        for one, decision in decisions.items()
    ]
    return {
        "prediction": f"call_{number}/0",
        "at": at,
        "version": version,
        "reason": "champion",
        "score": 0.25 + decisions[version] / 2,
        "decision": decisions[version],
        "answers": answers,
        "truth": truth,
        **more,
    }


def frame(rows: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema_overrides={
            "at": pl.Datetime("us", "UTC"), "answers": pl.List(ANSWER), "truth": pl.Float64, "decision": pl.Int64,
            "score": pl.Float64,
        },
    )  # fmt: skip


@pytest.fixture
def log() -> pl.DataFrame:
    april = datetime(2013, 4, 2, 12, tzinfo=UTC)
    return frame(
        [
            call(1, MARCH, 1, {1: 1, 2: 0}, 1.0),  # rule right; frozen and monthly miss: 3
            call(2, MARCH + timedelta(hours=1), 1, {1: 1, 2: 0}, 0.0),  # rule raises a false alarm: 1
            call(3, MARCH + timedelta(days=20), 2, {2: 1, 1: 0}, None),  # cancelled
            call(4, april, 3, {3: 1, 2: 0, 1: 0}, 1.0),  # monthly is version 3 by now, and right
            call(5, april, 2, {2: 0, 3: 1, 1: 0}, 0.0, reason="canary"),
            call(6, datetime(2013, 5, 1, 1, tzinfo=UTC), 3, {3: 0, 2: 1, 1: 0}, 1.0),  # still April in New York
            call(7, april, 3, {3: 0, 2: 1}, 0.0),  # the rule gave no answer: costs are not compared on it
        ]
    )


def test_each_way_is_read_from_the_answers_of_its_version(log: pl.DataFrame) -> None:
    rows = figures.reduce(log, STANDING)
    assert rows["month"].to_list() == ["2013-03"] * 3 + ["2013-04"] * 4
    assert rows["monthly"].to_list() == [0, 0, 1, 1, 1, 0, 0]
    assert rows["rule"].to_list() == [1, 1, 0, 0, 0, 0, None]
    march, april = figures.by_month(rows, COST)
    assert (march.rows, march.outcomes, march.compared) == (3, 2, 2)
    assert march.cost == {"rule": 0.5, "frozen": 1.5, "loop": 0.5, "monthly": 1.5}
    assert (march.late_share, march.champion) == (0.5, 2)
    assert (april.rows, april.outcomes, april.compared) == (4, 4, 3)
    assert april.cost == pytest.approx({"rule": 2.0, "frozen": 1.0, "loop": 1.0, "monthly": 4 / 3})
    assert april.champion == 3


def test_a_failed_call_counts_nowhere(log: pl.DataFrame) -> None:
    failed = frame([call(9, MARCH, 1, {1: 1}, 1.0)]).with_columns(
        decision=pl.lit(None, pl.Int64), score=pl.lit(None, pl.Float64)
    )
    assert figures.reduce(pl.concat([log, failed]), STANDING).height == log.height


def test_costs_are_those_of_a_plain_recount() -> None:
    rng = np.random.default_rng(4)
    rows = []
    for number in range(400):
        truth = float(rng.integers(2)) if rng.random() > 0.1 else None
        decisions = {version: int(rng.integers(2)) for version in (1, 2, 3)}
        at = MARCH + timedelta(hours=4 * number)
        rows.append(call(number, at, int(rng.integers(1, 4)), decisions, truth))
    found = figures.figures("all", figures.reduce(frame(rows), STANDING), COST)

    def paid(way: str, row: Any) -> float:
        version = {"rule": 1, "frozen": 2, "loop": row["version"]}.get(way) or (
            2 if row["at"] < STANDING[3].since else 3
        )
        decision = next(one["decision"] for one in row["answers"] if one["version"] == version)
        return 3.0 * (row["truth"] == 1 and not decision) + (row["truth"] == 0 and decision)

    for way in figures.WAYS:
        expected = np.mean([paid(way, row) for row in rows if row["truth"] is not None])
        assert found.cost[way] == pytest.approx(expected)


def test_a_log_without_outcomes_has_no_figures_and_no_crash() -> None:
    rows = figures.reduce(frame([call(1, MARCH, 1, {1: 1, 2: 0}, None)]), STANDING)
    (march,) = figures.by_month(rows, COST)
    assert march.cost == dict.fromkeys(figures.WAYS)
    assert march.auc is None
    built = report.build(rows, [], COST, monthly_retrainings=0, trace={}, seconds=1.0)
    assert [target["met"] for target in built["comparison"]["targets"]] == [None, None, False]
    json.dumps(built, allow_nan=False)
    assert "cannot be said" in page.page(built)


@pytest.fixture
def built() -> dict[str, Any]:
    return build()


def build(**more: Any) -> dict[str, Any]:
    rng, rows, at = np.random.default_rng(0), [], MARCH
    for number in range(1200):
        at = MARCH + timedelta(hours=6 * number)
        truth = int(rng.random() < 0.25)
        good = truth if rng.random() < 0.8 else 1 - truth
        decisions = {1: int(rng.integers(2)), 2: good if at.month < 6 else 0, 3: good}
        version = 2 if at < datetime(2013, 4, 3, tzinfo=UTC) else 3
        rows.append(call(number, at, version, decisions, truth if number % 20 else None))
    events = [
        Event(MARCH + timedelta(days=20), "alert", "alrt_1", "drift_share is 0.31"),
        Event(MARCH + timedelta(days=31), "retraining", "delay@3", "drift & <cost>"),
        Event(MARCH + timedelta(days=35), "promotion", "delay@3", "not proven worse"),
        Event(MARCH + timedelta(days=60), "rejection", "delay@4", "cost"),
    ]
    trace = {"back": ["call_7/0", "  delay@3"], "forward": ["flights@1"]}
    return report.build(
        figures.reduce(frame(rows), STANDING), events, COST, monthly_retrainings=9, trace=trace, seconds=12.34, **more
    )


def test_the_report_has_the_promised_shape(built: dict[str, Any]) -> None:
    assert {"month", "rows", "late_share", "champion", "auc", "cost"} <= set(built["months"][0])
    assert len(built["months"]) == 10
    assert set(built["months"][0]["cost"]) == {"rule", "frozen", "loop", "monthly"}
    totals = built["totals"]
    assert totals["retrainings"] == {"loop": 1, "monthly": 9}
    assert (totals["promotions"], totals["rejections"], totals["rollbacks"], totals["alerts"]) == (1, 1, 0, 1)
    assert (totals["predictions"], totals["outcomes"], totals["without_outcome"]) == (1200, 1140, 60)
    assert sum(month["rows"] for month in built["months"]) == 1200
    assert built["seconds"] == 12.3
    assert built["july_to_december"]["predictions"] == sum(month["rows"] for month in built["months"][4:])
    assert json.loads(json.dumps(built, allow_nan=False)) == built


def test_targets_say_what_was_met_and_what_was_missed(built: dict[str, Any]) -> None:
    cost = built["totals"]["cost"]
    below, near, fewer = built["comparison"]["targets"]
    assert below["found"] == pytest.approx(cost["loop"] / cost["frozen"] - 1)
    assert below["met"] is (below["found"] <= -0.05)
    assert near["found"] == pytest.approx(cost["loop"] / cost["monthly"] - 1)
    assert fewer["met"] is True
    assert report.build(
        pl.concat([figures.reduce(frame([call(1, MARCH, 1, {1: 1, 2: 0}, 0.0)]), STANDING)]), [], COST,
        monthly_retrainings=0, trace={}, seconds=1.0,
    )["comparison"]["targets"][2]["met"] is False  # fmt: skip


def test_shares_of_a_day_add_up(built: dict[str, Any]) -> None:
    by_day: dict[str, float] = {}
    for one in built["answers_by_day"]:
        by_day[one["day"]] = by_day.get(one["day"], 0.0) + one["share"]
    assert set(by_day.values()) == {1.0}


def test_the_page_needs_nothing_else_and_escapes(built: dict[str, Any]) -> None:
    html = page.page(built)
    assert not re.search(r"(src|href)=|@import|url\(", html)
    assert "drift &amp; &lt;cost&gt;" in html
    assert "drift & <cost>" not in html
    assert "prefers-color-scheme: dark" in html
    assert html.count("<svg") == 3
    for month in built["months"]:
        assert f"{month['cost']['loop']:.4f}" in html
    for trace in (*built["trace"]["back"], *built["trace"]["forward"]):
        assert trace in html


def test_points_lie_where_their_values_are(built: dict[str, Any]) -> None:
    drawn = plots.cost_by_month(built)
    dots = re.findall(r'class="dot loop" cx="([\d.]+)" cy="([\d.]+)".*?: ([\d.]+) EUR', drawn)
    assert len(dots) == 10
    y, value = np.array([float(dot[1]) for dot in dots]), np.array([float(dot[2]) for dot in dots])
    slope, offset = np.polyfit(value, y, 1)
    assert slope < 0  # higher costs are drawn higher up
    np.testing.assert_allclose(slope * value + offset, y, atol=0.15)


@pytest.mark.parametrize(
    ("low", "high"), [(0.42, 0.71), (0.0, 0.33), (0.5, 0.5), (0.0, 0.0), (0.4999, 0.5001), (3, 11)]
)
def test_scales_hold_their_values(low: float, high: float) -> None:
    below, above, step = plots.scale(low, high)
    assert below <= low + 1e-12
    assert above >= high - 1e-12
    assert 1 <= round((above - below) / step) <= 8


def test_plain_lines_where_there_is_no_terminal(built: dict[str, Any]) -> None:
    from rich.console import Console

    out = io.StringIO()
    terminal.show(built, Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    march = next(line for line in lines if line.startswith("2013-03"))
    assert f"{built['months'][0]['cost']['loop']:.4f}" in march
    assert any("60 flights were cancelled or diverted" in line for line in lines)
    assert any(line.startswith("target ") for line in lines)
    assert "2013-04-01  retraining  delay@3: drift & <cost>" in lines


def test_tables_on_a_terminal(built: dict[str, Any]) -> None:
    from rich.console import Console

    out = io.StringIO()
    terminal.show(built, Console(file=out, force_terminal=True, width=120))
    assert "│" in out.getvalue() or "┃" in out.getvalue()
    assert "July to December apart" in out.getvalue()
