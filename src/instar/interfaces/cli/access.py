"""`instar token` and `instar whoami`: who may come in, from the machine of the store's owner, or over a server."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from instar.core.settings import read_settings
from instar.interfaces import tokens
from instar.interfaces.cli.groups import Group
from instar.interfaces.sdk.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instar.app import App

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
URL_HELP = "Ask this server; default INSTAR_URL, else the store here, as its owner."


@click.group("token", cls=Group)
def token_group() -> None:
    """Make, change, list and revoke the tokens by which others come in, and see who was refused."""


@token_group.command("create")
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, help="Role it has; may be given more than once.")
@click.option("--project", "projects", multiple=True, help="Project in which it has them; default the one here.")
@click.option("--all-projects", is_flag=True, help="In all projects of the store, later ones included.")
@click.option("--expires", default="90d", show_default=True, help="How long it lives, as in 12h, 90d; or never.")
@click.option("--endpoint", "endpoints", multiple=True, help="The only endpoints that it may ask and see; default all.")
@click.option("--rate", help="Calls that the server lets through, as in 100/s or 600/m; default no limit.")
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
        found = side.make({**wish, "roles": {one: list(roles) for one in named}})
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
    from instar.core.errors import BadInput

    if all_projects and projects:
        raise BadInput("name projects, or all of them, not both", subject="instar token change")
    with _side(project, url) as side:
        named = ["*"] if all_projects else list(projects) or [side.project()]
        found = side.change(name, {one: list(roles) for one in named})
    click.echo(f"{found['id']} of {found['name']}: {_held(found['roles'])}")


@token_group.command("ls")
@click.option("--all", "all_", is_flag=True, help="Those that are revoked or expired, too.")
@click.option("--url", help=URL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_command(project: str | None, all_: bool, url: str | None, as_json: bool) -> None:
    """Tokens that are live, the newest first."""
    with _side(project, url) as side:
        found = [one for one in side.shown() if all_ or one["state"] == "live"]
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
    with _side(project, url) as side:
        found = side.revoke(name)
    click.echo(f"{found['id']} of {found['name']} is revoked")


@token_group.command("refused")
@click.option("--caller", help="Of this token alone, by name; nobody stands for all without a valid one.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--url", help=URL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def refused_command(project: str | None, caller: str | None, limit: int, url: str | None, as_json: bool) -> None:
    """Who was refused what, counted by the minute, the latest first."""
    with _side(project, url) as side:
        found = side.refused(caller, limit)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found:
        where = f" in {one['project']}" if one["project"] else ""
        minute = one["minute"][:16].replace("T", " ")
        click.echo(f"{minute}  {one['status']}  {one['caller']}  {one['route']}{where}  {one['count']} times")
    if not found:
        click.echo("nobody was refused anything")


@click.command("whoami")
@click.option("--url", help=URL_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def whoami_command(project: str | None, url: str | None, as_json: bool) -> None:
    """Say who one is here, and what one may do."""
    with _side(project, url) as side:
        found = side.who()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['name']}, {found['kind']}: {_held(found['roles'])}")
    for project_name, permissions in found["may"].items():
        words = [one for one in permissions if one not in ("nothing", "to be known")]
        click.echo(f"  {'all projects' if project_name == '*' else project_name}: {', '.join(words)}")


class _Server:
    """What is asked goes over a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def project(self) -> str:
        return str(self._client.ask("GET", "/api/projects")["own"])

    def make(self, asked: dict[str, Any]) -> Any:
        return self._client.ask("POST", "/api/tokens", asked)

    def change(self, name: str, roles: dict[str, list[str]]) -> Any:
        return self._client.ask("PUT", f"/api/tokens/{quote(name, safe='')}/roles", {"roles": roles})

    def revoke(self, name: str) -> Any:
        return self._client.ask("DELETE", f"/api/tokens/{quote(name, safe='')}")

    def shown(self) -> Any:
        return self._client.ask("GET", "/api/tokens")["tokens"]

    def refused(self, caller: str | None, limit: int) -> Any:
        asked = f"?limit={limit}" + (f"&caller={quote(caller, safe='')}" if caller else "")
        return self._client.ask("GET", f"/api/refusals{asked}")["refusals"]

    def who(self) -> Any:
        return self._client.ask("GET", "/api/whoami")


class _Owner:
    """What is asked is done on the store's files, which belong to this user."""

    def __init__(self, app: App) -> None:
        from instar.core.identity import local_caller

        self._app, self._me = app, local_caller()

    def project(self) -> str:
        return self._app.project_name

    def make(self, asked: dict[str, Any]) -> Any:
        import msgspec

        return _plain(tokens.make(self._app, self._me, msgspec.convert(asked, tokens.NewToken)))

    def change(self, name: str, roles: dict[str, list[str]]) -> Any:
        return _plain(tokens.change(self._app, self._me, name, roles))

    def revoke(self, name: str) -> Any:
        return _plain(tokens.revoke(self._app, self._me, name))

    def shown(self) -> Any:
        return _plain(tokens.shown(self._app, self._me))

    def refused(self, caller: str | None, limit: int) -> Any:
        return _plain(tokens.refused(self._app, self._me, caller, limit))

    def who(self) -> Any:
        return _plain(tokens.who(self._me))


def _plain(document: object) -> Any:
    """A document as it comes over the wire."""
    import msgspec

    return msgspec.to_builtins(document)


@contextmanager
def _side(project: str | None, url: str | None) -> Iterator[_Server | _Owner]:
    """The server that was named, or the store here, whose files belong to this user."""
    from instar.app import open_app

    url = url or read_settings().url
    if url is not None:
        with Client(url) as client:
            yield _Server(client)
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
