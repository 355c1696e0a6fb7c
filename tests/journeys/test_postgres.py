"""The newcomer's project on PostgreSQL: not a line of it changes, only where the records are kept."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.journeys import driving
from tests.journeys.conftest import ROW
from tests.journeys.driving import instar, told, up


def test_the_same_project_goes_round_on_postgresql(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = driving.environment
    monkeypatch.setattr(driving, "environment", lambda **changes: plain(INSTAR_DATABASE=postgres_database, **changes))
    instar(tmp_path, "init", "cafe")
    cafe = tmp_path / "cafe"
    assert "5 of 5 steps ran" in instar(cafe, "run", "-j", "2").stdout
    assert "0 of 5 steps ran" in instar(cafe, "run").stdout
    assert not (cafe / ".instar" / "instar.db").exists()
    with up(cafe, "no_show") as server:
        values = [f"{name}={value}" for name, value in ROW.items()]
        (answer,) = told(cafe, "predict", "no_show", *values)
        posted = {"outcomes": [{"prediction": answer["prediction"], "value": True}]}
        assert httpx2.post(server.url + "/api/outcomes", json=posted).status_code == 200
        posted["outcomes"][0]["value"] = False
        assert httpx2.post(server.url + "/api/outcomes", json=posted).status_code == 409
    found = told(cafe, "trace", answer["prediction"])
    assert "bookings@1" in str(found)
    assert "consistent" in instar(cafe, "audit", "verify").stdout
