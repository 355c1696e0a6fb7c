"""How values of records read on a page, and who gets the JSON twin."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from instar.interfaces.console import render, wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (336776, "336,776"),
        (-3.0, "−3"),
        (0.51234, "0.5123"),
        (12.3456, "12.35"),
        (0.000012, "1.2e−05"),
        (True, "yes"),
        (0, "0"),
    ],
)
def test_numbers_are_written_for_people(value: Any, text: str) -> None:
    assert wording.figure(value) == text


def test_a_metric_that_is_no_number_is_not_missing() -> None:
    assert [wording.logged(value) for value in (math.nan, math.inf, 0.5)] == ["NaN", "∞", "0.5000"]
    assert wording.figure(None) == "–"


def test_times_are_utc_to_the_minute_and_exact_for_machines() -> None:
    moment = datetime(2026, 3, 1, 1, 30, 12, tzinfo=timezone(timedelta(hours=2)))
    assert wording.when(moment) == '<time datetime="2026-02-28T23:30:12+00:00">2026-02-28 23:30</time>'
    assert wording.when(None) == "–"


def test_ids_are_cut_where_they_differ_and_kept_whole_in_the_title() -> None:
    run = "run_01M7YE5E4T024EB8F5YS0JQG1P"
    assert f'title="{run}"' in wording.short(run)
    assert "run_…F5YS0JQG1P" in wording.short(run)
    assert "b3:9c6fe155ef…" in wording.short("b3:9c6fe155ef985d72c4424f56ff6933")
    assert "<b>" not in wording.short("b3:<b>" + "0" * 60)


def test_lengths_of_time_and_sizes_have_units() -> None:
    assert [wording.span(value) for value in (0.0042, 3.5, 90, timedelta(hours=3), timedelta(days=14))] == [
        "4 ms", "3.5 s", "1.5 min", "3 h", "14 d",
    ]  # fmt: skip
    assert [wording.size(value) for value in (7, 4060, 12_300_000)] == ["7 B", "4.06 kB", "12.3 MB"]


def test_anything_of_a_record_can_be_printed_and_nothing_of_it_is_markup() -> None:
    value = {"at": datetime(2026, 1, 1, tzinfo=UTC), "rows": [1, 0.25, None], "who": "<b>", "digest": "b3:" + "a" * 64}
    text = wording.plain(value)
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "0.25" in text
    assert "b3:aaaaaaaaaa…" in text


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ("application/json", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/json, text/html", True),
        ("text/html, application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_twin_goes_to_whoever_asks_for_json_first(accept: str, json: bool) -> None:
    request: Any = SimpleNamespace(headers={"accept": accept})
    assert render.wants_json(request) is json


def test_paths_are_quoted() -> None:
    assert render.url("a project", "tables", "x/y?z") == "/console/a%20project/tables/x%2Fy%3Fz"


def test_ids_inside_a_text_become_links_and_the_rest_stays_text() -> None:
    run = "run_01M7YE5E4T024EB8F5YS0JQG1P"
    text = str(render.linked(f"<i> by {run}, of b3:{'a' * 64}", "flights"))
    assert f'<a href="/console/flights/records/{run}">' in text
    assert "&lt;i&gt;" in text
    assert text.count("<a ") == 1  # a digest may name anything
    assert "b3:aaaaaaaaaa…" in text
    assert render.linked(None, "flights") == "–"


def test_only_what_has_a_page_is_linked() -> None:
    assert "<a " in render.record("mver_01M7YE5E4T024EB8F5YS0JQG1P", "flights")
    assert "<a " not in render.record("delay/MVXCXA-000000", "flights")


def test_a_long_reason_says_how_much_it_left_out() -> None:
    parts = [f"slice {number}: worse" for number in range(40)]
    found = wording.brief("; ".join(parts), 60)
    assert found == "slice 0: worse; slice 1: worse; slice 2: worse; and 37 more"
    assert wording.brief("short") == "short"
    assert wording.brief("x" * 500) == "x" * 500
