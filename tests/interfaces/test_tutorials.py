"""The tutorials are run as they are written: shell blocks in one shell, a server beside it, Python blocks as programs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import httpx2
import pytest

import instar
from instar.core import errors
from tests.interfaces.as_written import TUTORIALS, run

# Its last word: what this file's own checks need, while the server still runs.
LOOK = f'"{sys.executable}" -m tests.interfaces.test_tutorials "$prediction"\n'


@pytest.mark.timeout(240)
def test_the_first_project_is_as_the_tutorial_says(tmp_path: Path) -> None:
    said = run((TUTORIALS / "01-first-project.md").read_text("utf-8"), tmp_path, LOOK)
    assert "code pipeline.MOST_GUESTS changed" in said
    assert "1 of 5 steps ran: clean_bookings" in said
    assert "answers on the record only" in said
    assert "consistent, not anchored" in said
    assert "looked at the running server" in said


@pytest.mark.timeout(240)
def test_from_notebook_to_pipeline_is_as_the_tutorial_says(tmp_path: Path) -> None:
    text = (TUTORIALS / "03-from-notebook-to-pipeline.md").read_text("utf-8")
    whole = importlib.util.find_spec("nbclient") is not None  # of the extra `notebook`, which its third part needs
    if not whole:
        text = text.partition("\n## 3.")[0]
    said = run(text, tmp_path)
    assert "1 of 6 steps would run; nothing was done" in said
    assert "code analysis.LARGE changed" in said
    assert "1 of 1 steps ran: large_parties" in said
    if whole:
        assert re.search(r"\d+ parties of 4 or more\n", said)
        assert re.search(r"\d+ parties of 6 or more\n", said)
        assert "parties.csv" in said, "what it wrote is kept"


def look(prediction: str) -> None:
    """The client and the console on the server of the tutorial, from its folder."""
    with instar.connect() as server:
        assert server.project == "bookings"
        (policy,) = server.live()
        assert policy["answering"][0]["version"] == "no_show@1"
        assert {"bookings", "booking_features"} <= {table["table"] for table in server.tables()}
        assert server.runs()
        assert len(server.models()) == 3
        with pytest.raises(errors.WrongDatatype, match="guests"):
            server.predict("no_show", {"guests": ["two"]})
        with pytest.raises(errors.NotFound):
            server.predict("nothing", {"guests": [2]})
        server.post_outcomes([{"prediction": prediction, "value": False}])
        with pytest.raises(errors.Conflict, match="another outcome"):
            server.post_outcomes([{"prediction": prediction, "value": True}])
        kinds = [hop["kind"] for hop in server.trace(prediction)["hops"]]
        assert kinds == ["outcome", "call", "model version", "features"]
        for page in (
            "",
            "/tables/booking_features",
            "/models/no_show/3",
            "/endpoints/no_show",
            f"/predictions/{prediction}",
        ):
            address = f"{server.url}/console/bookings{page}"
            assert httpx2.get(address).status_code == 200, page
            assert httpx2.get(f"{address}.json").json()["project"] == "bookings"
    print("looked at the running server")


if __name__ == "__main__":
    look(sys.argv[1])
