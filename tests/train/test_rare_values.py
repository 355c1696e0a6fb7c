"""A search for a value that few runs have looks at those runs only, and finds what the plain way finds."""

from __future__ import annotations

import pytest

from instar.core.store import Store
from instar.train import run_search, runs


@pytest.mark.parametrize("few", [0, 3, 1000])
def test_rare_and_common_values_are_found_alike(store: Store, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_search, "FEW", few)
    long = "y" * 300
    for number in range(40):
        run = runs.start(
            store, "p", experiment="a" if number % 2 else "b", name=f"{number}", capture=False,
            parameters={"rare": "x" if number in (3, 4, 30) else "z", "long": long + ("!" if number == 7 else "?")},
            tags={"common": "1"},
        )  # fmt: skip
        runs.log_metrics(store, run.id, {"m": number})
    group = runs.get_run(store, run.id).experiment_id

    def found(filter: str, **about: object) -> list[str]:
        return [one.name for one in run_search.search(store, filter=filter, **about).items]  # type: ignore[arg-type]

    assert found("params.rare = 'x'") == ["30", "4", "3"]
    assert found("params.rare = 'x' AND tags.common = '1'", order_by=["metrics.m"]) == ["3", "4", "30"]
    assert found("params.rare = 'x'", experiments=[group]) == ["3"]
    assert found("params.rare IN ('x', 'w') AND metrics.m > 3", projects=["p"]) == ["30", "4"]
    assert found("params.rare = 'none' OR params.rare = 'x'") == ["30", "4", "3"]
    assert found(f"params.long = '{long}!'") == ["7"]
    assert found("NOT (params.rare = 'z')", limit=2) == ["30", "4"]
    assert run_search.count(store, filter="params.rare = 'x'") == 3
    assert run_search.count(store, filter="params.rare = 'none'") == 0
    page = run_search.search(store, filter="params.rare = 'x'", limit=2)
    rest = run_search.search(store, filter="params.rare = 'x'", limit=2, token=page.token)
    assert [one.name for one in (*page.items, *rest.items)] == ["30", "4", "3"]
    runs.delete(store, page.items[0].id)
    assert found("params.rare = 'x'") == ["4", "3"]
