"""`instar token` and `instar whoami`: who may come in, from the machine of the store's owner, or over a server."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instar.app import App

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
URL_HELP = "Ask this server; default INSTAR_URL, else the store here, as its owner."


@click.group("token")
def token_group() -> None:
    """Make, change, list and revoke the tokens by which others come in."""


@token_group.command("create")
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, help="Role it has; may be given more than once.")
@click.option("--project", "projects", multiple=True, help="Project in which it has them; default the one here.")
@click.option("--all-projects", is_flag=True, help="In all projects of the store, later ones included.")
@click.option("--expires", default="90d", show_default=True, help="How long it lives, as in 12h, 90d; or never.")
@click.option("--endpoint", "endpoints", multiple=True, help="The only endpoints that it may ask; default all.")
@click.option("--rate", help="Calls that each process lets through, as in 100/s or 600/m; default no limit.")
@click.option("--service", is_flag=True, help="It is an application's, not a person's.")
@click.option("--url", help=URL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def create_command(
    project: str | None, name: str, roles: tuple[str, ...], projects: tuple[str, ...], all_projects: bool, expires: str,
    endpoints: tuple[str, ...], rate: str | None, service: bool, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make a token. Its secret is printed once and kept nowhere."""
    from instar.core.errors import BadInput

    if all_projects and projects:
        raise BadInput("name projects, or all of them, not both", subject="instar token create")
    wish = {
        "name": name, "kind": "service" if service else "user", "endpoints": list(endpoints) or None,
        "expires_seconds": _seconds(expires), "rate": _rate(rate),
    }  # fmt: skip
    with _side(project, url) as side:
        named = ["*"] if all_projects else list(projects) or [side.project()]
        found = side.ask("POST", "/api/tokens", {**wish, "roles": {one: list(roles) for one in named}})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(found["secret"])
    click.echo(f"{found['id']} of {name}: {_held(found['roles'])}; {_until(found)}", err=True)
    click.echo("It is shown this once. Put it into a file of mode 0600 and name that by INSTAR_TOKEN_FILE.", err=True)


@token_group.command("change")
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, required=True, help="Role it has from now on; may be given more than once."
)
@click.option("--project", "projects", multiple=True, help="Project in which it has them; default the one here.")
@click.option("--all-projects", is_flag=True, help="In all projects of the store, later ones included.")
@click.option("--url", help=URL_HELP)
@click.pass_obj
def change_command(
    project: str | None,
    name: str,
    roles: tuple[str, ...],
    projects: tuple[str, ...],
    all_projects: bool,
    url: str | None,
) -> None:
    """Give a token, by name or id, these roles in place of those that it has."""
    from urllib.parse import quote

    from instar.core.errors import BadInput

    if all_projects and projects:
        raise BadInput("name projects, or all of them, not both", subject="instar token change")
    with _side(project, url) as side:
        named = ["*"] if all_projects else list(projects) or [side.project()]
        body = {"roles": {one: list(roles) for one in named}}
        found = side.ask("PUT", f"/api/tokens/{quote(name, safe='')}/roles", body)
    click.echo(f"{found['id']} of {found['name']}: {_held(found['roles'])}")


@token_group.command("ls")
@click.option("--all", "all_", is_flag=True, help="Those that are revoked or expired, too.")
@click.option("--url", help=URL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_command(project: str | None, all_: bool, url: str | None, as_json: bool) -> None:
    """Tokens that are live, the newest first."""
    with _side(project, url) as side:
        found = [one for one in side.ask("GET", "/api/tokens")["tokens"] if all_ or one["state"] == "live"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found:
        used = f"last used {one['used_at'][:16].replace('T', ' ')}" if one["used_at"] else "never used"
        only = f" at {', '.join(one['endpoints'])}" if one["endpoints"] is not None else ""
        state = "" if one["state"] == "live" else f" ({one['state']})"
        click.echo(
            f"{one['id']}  {one['name']}{state}  {one['kind']}  {_held(one['roles'])}{only}  {used}, {_until(one)}"
        )
    if not found:
        click.echo("no token yet; make one: instar token create NAME --role ROLE")


@token_group.command("revoke")
@click.argument("name")
@click.option("--url", help=URL_HELP)
@click.pass_obj
def revoke_command(project: str | None, name: str, url: str | None) -> None:
    """Have a token, by name or id, prove nothing any more, within a second."""
    from urllib.parse import quote

    with _side(project, url) as side:
        found = side.ask("DELETE", f"/api/tokens/{quote(name, safe='')}")
    click.echo(f"{found['id']} of {found['name']} is revoked")


@click.command("whoami")
@click.option("--url", help=URL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def whoami_command(project: str | None, url: str | None, as_json: bool) -> None:
    """Say who one is here, and what one may do."""
    with _side(project, url) as side:
        found = side.ask("GET", "/api/whoami")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['name']}, {found['kind']}: {_held(found['roles'])}")
    for project_name, permissions in found["may"].items():
        words = [one for one in permissions if one not in ("nothing", "to be known")]
        click.echo(f"  {'all projects' if project_name == '*' else project_name}: {', '.join(words)}")


class _Server:
    """What is asked goes over a server."""

    def __init__(self, url: str) -> None:
        from instar.interfaces.sdk.client import Client

        self._client = Client(url)

    def project(self) -> str:
        return str(self._client.ask("GET", "/api/projects")["own"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self._client.ask(method, path, body)

    def close(self) -> None:
        self._client.close()


class _Owner:
    """What is asked is done on the store's files, by the same handlers."""

    def __init__(self, app: App) -> None:
        self._app = app

    def project(self) -> str:
        return self._app.project_name

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        import msgspec

        from instar.interfaces.api import access
        from instar.interfaces.api.routes import Request
        from instar.interfaces.api.table import Table

        table = Table(access.routes)
        methods, values = table.find(path)
        route = methods[method]
        sent = b"" if body is None else msgspec.json.encode(body)
        request = Request(self._app, self._app.store.actor, table.parameters(route, values), body=sent, method=method)
        return msgspec.to_builtins(route.handler(request).value)

    def close(self) -> None:
        pass


@contextmanager
def _side(project: str | None, url: str | None) -> Iterator[_Server | _Owner]:
    """The server that was named, or the store here, whose files belong to this user."""
    from instar.app import open_app
    from instar.core.settings import read_settings

    url = url or read_settings().url
    if url is not None:
        server = _Server(url)
        try:
            yield server
        finally:
            server.close()
        return
    with open_app(Path(project) if project else None, need_project=False) as app:
        yield _Owner(app)


def _seconds(text: str) -> float | None:
    from instar.core.errors import BadInput

    if text == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhdwy])", text)
    if found is None:
        raise BadInput("that is no time", subject="--expires", found=repr(text), asked="as in 12h, 90d or 1y, or never")
    return float(found[1]) * _UNITS[found[2]]


def _rate(text: str | None) -> float | None:
    from instar.core.errors import BadInput

    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/([smh]))?", text)
    if found is None or not float(found[1]):
        raise BadInput("that is no rate", subject="--rate", found=repr(text), asked="as in 100/s or 600/m")
    return float(found[1]) / _UNITS[found[2] or "s"]


def _held(roles: dict[str, list[str]]) -> str:
    return "; ".join(f"{', '.join(held)} in {'all projects' if p == '*' else p}" for p, held in roles.items())


def _until(token: dict[str, Any]) -> str:
    return f"expires {token['expires_at'][:16].replace('T', ' ')} UTC" if token["expires_at"] else "never expires"


commands: dict[str, click.Command] = {"token": token_group, "whoami": whoami_command}
