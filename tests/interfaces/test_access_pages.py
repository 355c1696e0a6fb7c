"""What is told of access: the page on the roles, and the console's."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from instar.core import tokens
from instar.core.identity import MAY, Permission, Role, local_caller
from instar.core.store import Store
from instar.core.tokens import Wish

PAGE = Path(__file__).parents[2] / "docs" / "access.md"


def test_the_page_has_the_roles_as_they_are() -> None:
    hidden = {Permission.PUBLIC, Permission.KNOWN}
    rows = [f"| `{role.value}` | {', '.join(sorted(MAY[role] - hidden))} |" for role in Role]
    assert "\n".join(["| role | permissions |", "| --- | --- |", *rows, ""]) in PAGE.read_text("utf-8")


def test_the_console_shows_tokens_and_no_secret(console: TestClient, kept: Store) -> None:
    wish = Wish("web", {"parcels": [Role.CALLER]}, "service", ["delay"])
    token, secret = tokens.create(kept, "parcels", wish, local_caller())
    page = console.get("/console/access", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert f'id="{token.id}"' in page.text
    assert "caller in parcels" in page.text
    assert secret not in page.text
    assert token.hash not in page.text
    twin = console.get("/console/access.json").json()
    assert [one["name"] for one in twin["tokens"]] == ["web"]
    assert token.hash not in str(twin)


def test_the_sign_in_page_has_no_script_of_its_own(console: TestClient) -> None:
    page = console.get("/console/sign-in")
    assert page.status_code == 200
    assert 'type="password"' in page.text
    assert "<script>" not in page.text
    assert console.get("/console/assets/sign.js").status_code == 200
