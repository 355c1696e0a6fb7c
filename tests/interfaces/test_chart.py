"""Charts place what was measured, and only that: scales hold all values, silence breaks a line, nothing is drawn for nothing."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from instar.interfaces.console import chart
from instar.interfaces.console.chart import Line, Mark

START = datetime(2026, 3, 1, tzinfo=UTC)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


def _days(*values: float | None) -> list[tuple[datetime, float | None]]:
    return [(START + timedelta(days=place), value) for place, value in enumerate(values)]


@given(NUMBERS, NUMBERS)
@settings(max_examples=60, deadline=None)
def test_ticks_are_few_and_round_and_hold_the_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    found = chart.ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 13
    assert found == sorted(set(found))


@given(st.lists(NUMBERS, min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_every_point_lies_inside_the_frame(values: list[float]) -> None:
    drawn = chart.lines([Line("a", _days(*values))])
    for x, y, _, value in drawn.lines[0].points:
        assert drawn.left <= x <= drawn.right
        assert drawn.top <= y <= drawn.bottom
        assert value in values


def test_higher_is_higher_and_later_is_further_right() -> None:
    (line,) = chart.lines([Line("a", _days(0.2, 0.5))]).lines
    (x1, y1, day1, _), (x2, y2, day2, _) = line.points
    assert x1 < x2
    assert y1 > y2  # y runs downwards
    assert (day1, day2) == ("2026-03-01", "2026-03-02")


def test_a_silence_breaks_the_line_and_missing_values_are_left_out() -> None:
    points = [*_days(1.0, 2.0, None, math.nan, 3.0), (START + timedelta(days=30), 4.0)]
    (line,) = chart.lines([Line("a", points)]).lines
    assert re.findall("[ML]", line.path) == ["M", "L", "L", "M"]
    assert len(line.points) == 4


def test_faint_lines_lie_below_and_take_no_colour() -> None:
    found = chart.lines([Line("old", _days(1, 2), faint=True), Line("a", _days(1, 2)), Line("b", _days(2, 3))]).lines
    assert [(one.name, one.tone) for one in found] == [("old", chart.FAINT), ("a", 0), ("b", 1)]


def test_marks_outside_of_the_time_shown_are_left_out() -> None:
    marks = [Mark(START + timedelta(days=1), "in"), Mark(START - timedelta(days=9), "before")]
    assert [text for _, text in chart.lines([Line("a", _days(1, 2, 3))], marks).marks] == ["in"]


def test_nothing_measured_is_an_empty_chart() -> None:
    assert chart.lines([Line("a", _days(None))]).lines == []
    assert chart.steps("loss", []).lines == []


def test_a_run_s_metric_is_drawn_by_its_steps() -> None:
    found = chart.steps("loss", [(0, 1.0), (10, 0.5)])
    assert [text for _, text in found.moments] == ["0", "2", "4", "6", "8", "10"]
    assert found.lines[0].last == 0.5
