"""A path finds its route: words before parameters, parts decoded, whatever the order of the table."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import InstarError, MalformedRequest
from instar.core.identity import Permission
from instar.interfaces.api.routes import PLAIN, Bound, Reply, Request, Route, Voice
from instar.interfaces.api.table import Table


def _handler(request: Request) -> Reply:
    return Reply()


def _refuse(error: InstarError) -> Reply:
    return Reply({"mine": str(error)})


MINE = Voice(("/api/2.0/mine", "/projects/{project}/api/2.0/mine"), _refuse)
PATHS = [
    "/{project}",
    "/{project}.json",
    "/runs/{run}",
    "/runs/latest",
    "/runs/{run}/metrics/{metric}",
    "/runs/{id}/artifacts/{path:path}",
    "/runs/{id}/artifacts/list",
    "/api/2.0/mine/get",
    "/",
]
TABLE = Table(
    [
        Route("GET", path, Permission.READ, _handler, voice=MINE if "mine" in path else PLAIN, bound=Bound.STORE)
        for path in PATHS
    ]
)


def found(path: str) -> tuple[str, dict[str, str]] | None:
    methods, values = TABLE.find(path)
    if not methods:
        return None
    return methods["GET"].path, TABLE.parameters(methods["GET"], values)


@pytest.mark.parametrize(
    ("path", "route", "parameters"),
    [
        ("/", "/", {}),
        ("/flights", "/{project}", {"project": "flights"}),
        ("/flights.json", "/{project}.json", {"project": "flights"}),
        ("/.json", "/{project}", {"project": ".json"}),
        ("/runs/latest", "/runs/latest", {}),
        ("/runs/l%61test", "/runs/latest", {}),
        ("/runs/run_1", "/runs/{run}", {"run": "run_1"}),
        ("/runs/run_1/metrics/a%2Fb%20%C3%A9", "/runs/{run}/metrics/{metric}", {"run": "run_1", "metric": "a/b é"}),
        ("/runs/r/artifacts/list", "/runs/{id}/artifacts/list", {"id": "r"}),
        ("/runs/r/artifacts/a/b.txt", "/runs/{id}/artifacts/{path:path}", {"id": "r", "path": "a/b.txt"}),
        ("/runs/r/artifacts/", "/runs/{id}/artifacts/{path:path}", {"id": "r", "path": ""}),
        ("/runs/r/artifacts/a//b/", "/runs/{id}/artifacts/{path:path}", {"id": "r", "path": "a//b/"}),
        (
            "/runs/r/artifacts/..%2f..%2Fetc",
            "/runs/{id}/artifacts/{path:path}",
            {"id": "r", "path": "../../etc"},
        ),
    ],
)
def test_a_path_finds_its_route(path: str, route: str, parameters: dict[str, str]) -> None:
    assert found(path) == (route, parameters)


@pytest.mark.parametrize("path", ["/runs/", "/runs//metrics/x", "/a/b", "/runs/r/artifacts", "/api/2.0/mine"])
def test_what_no_route_names_is_not_found(path: str) -> None:
    assert found(path) is None


def test_a_path_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(MalformedRequest):
        TABLE.find("/runs/%ff")


@given(st.text(min_size=1).filter(lambda text: text != "latest"))
def test_any_text_can_be_a_parameter(text: str) -> None:
    quoted = quote(text.encode("utf-8", "surrogatepass"), safe="")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        with pytest.raises(MalformedRequest):
            found(f"/runs/{quoted}")
    else:
        assert found(f"/runs/{quoted}") == ("/runs/{run}", {"run": text})


@pytest.mark.parametrize(
    ("path", "voice"),
    [
        ("/api/2.0/mine/unknown", MINE),
        ("/projects/p/api/2.0/mine/x/y", MINE),
        ("/api/2.0/other", PLAIN),
        ("/projects/api/2.0/mine", PLAIN),
        ("/api/2.0/mineral", PLAIN),
    ],
)
def test_an_unknown_path_is_refused_in_the_voice_of_its_neighbours(path: str, voice: Voice) -> None:
    assert TABLE.voice(path) is voice


def test_a_route_is_there_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Table(
            [
                Route("GET", "/a/{x}", Permission.READ, _handler, bound=Bound.STORE),
                Route("GET", "/a/{y}", Permission.READ, _handler, bound=Bound.STORE),
            ]
        )
