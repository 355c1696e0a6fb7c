"""Reading back: search with filter and order, order alone, paging through all runs, a long history, a wide table."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec
from wire import ROOT, Wire, encoded

FILTER = "metrics.m0 > 0.5 and params.p0 = 'a'"
PAGE = 1000


class Info(msgspec.Struct):
    run_id: str


class Listed(msgspec.Struct):
    info: Info


class Page(msgspec.Struct):
    """What paging reads of an answer: making thousands of runs of it takes as long as the faster server."""

    runs: list[Listed] = []
    next_page_token: str = ""


def reading(url: str, names: dict[str, str], runs: int, history: int, turns: int) -> dict[str, float]:
    """Milliseconds of each question, the median of some turns.

    Args:
        names: Ids of the experiment with many runs, and of the run with a long history.
        runs: How many there are; an answer that misses some is no answer.
    """
    with Wire(url) as wire:
        ask = {"experiment_ids": [names["experiment"]]}

        def filtered() -> None:
            found = _search(wire, ask, filter=FILTER, order_by=["metrics.m1 DESC"], max_results=100)
            values = [_metric(one, "m1") for one in found["runs"]]
            assert len(values) == min(100, len(values)) > 0
            assert values == sorted(values, reverse=True)
            assert all(_metric(one, "m0") > 0.5 for one in found["runs"])

        def ordered() -> None:
            found = _search(wire, ask, order_by=["metrics.m1 ASC"], max_results=100)
            values = [_metric(one, "m1") for one in found["runs"]]
            # One run has no metrics; wherever it stands, the others are in order.
            assert [v for v in values if v is not None] == sorted(v for v in values if v is not None)
            assert len(values) == min(100, runs + 1)

        def paged() -> None:
            seen: set[str] = set()
            token = ""
            while True:
                more = {"page_token": token} if token else {}
                answer = wire.send("POST", ROOT + "runs/search", encoded({**ask, "max_results": PAGE, **more}))
                page = msgspec.json.decode(answer, type=Page)
                seen.update(one.info.run_id for one in page.runs)
                token = page.next_page_token
                if not token:
                    break
            assert len(seen) == runs + 1, f"{len(seen)} of {runs + 1} runs"

        def remembered() -> None:
            found = wire.get("metrics/get-history", run_id=names["long"], metric_key="loss")
            assert len(found["metrics"]) == history, f"{len(found['metrics'])} of {history} points"

        return {
            "search, filter and order ms": _ms(filtered, turns),
            "search, order alone ms": _ms(ordered, turns),
            "paging through all ms": _ms(paged, max(3, turns // 3)),
            **({"history ms": _ms(remembered, max(3, turns // 3))} if history else {}),
        }


def table_page(url: str, names: dict[str, str], turns: int) -> dict[str, float]:
    """Milliseconds of a page of 50 runs of a wide table, with all metrics, ordered by one of them."""
    with Wire(url) as wire:
        ask = {"experiment_ids": [names["experiment"]]}

        def page() -> None:
            found = _search(wire, ask, order_by=["metrics.m1 DESC"], max_results=50)
            assert len(found["runs"]) == 50

        return {"page of a wide table ms": _ms(page, turns)}


def _search(wire: Wire, ask: dict[str, Any], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = wire.post("runs/search", {**ask, **more})
    return found


def _metric(run: dict[str, Any], name: str) -> Any:
    return next((one["value"] for one in run["data"].get("metrics", []) if one["key"] == name), None)


def _ms(work: Callable[[], None], turns: int) -> float:
    work()
    taken = []
    for _ in range(turns):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)
