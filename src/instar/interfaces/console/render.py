"""How a page leaves the console: one view, as HTML by a template or as its JSON twin, under a strict content policy.

A view is a plain dictionary made from the stages' public functions. The twin of `/console/flights` is
`/console/flights.json`, or the same path asked for with `Accept: application/json`. All text is escaped by the
templates, which know no other way to print.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup, escape

from instar.core.errors import BadInput, InstarError
from instar.core.identity import Permission
from instar.interfaces.api.routes import Bound, Handler, Reply, Request, Route
from instar.interfaces.api.status import body_of, status_of
from instar.interfaces.comparison import page as comparison_page
from instar.interfaces.console.wording import FILTERS, logged, short
from instar.interfaces.tuning import page as tuning_page
from instar.train.run_records import Run

ROOT = "/console"
HERE = Path(__file__).parent

# Nothing from elsewhere, nothing inline: what a record holds can never become script or style.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "accept",
}

View = Callable[[Request], dict[str, Any]]


def page(
    path: str, template: str, view: View, asked: View | None = None, *,
    permission: Permission = Permission.READ, bound: Bound = Bound.PROJECT, narrows: bool = False,
    told: tuple[type[InstarError], ...] = (BadInput,),
) -> list[Route]:  # fmt: skip
    """The routes of a page and of its JSON twin; the twin first, since `{name}` would match `name.json` too.

    Args:
        asked: Of a page with a form: what it shows when the input cannot be read. People then see the reason above what
            they had typed; it gets `refused`, the error's document, beside its own facts.
        told: The errors that are told so.
    """

    def show(request: Request) -> Reply:
        if wants_json(request):
            return Reply(view(request), headers={"vary": "accept"})
        try:
            return html(template, view(request))
        except told as error:
            if asked is None:
                raise
            return html(template, {**asked(request), "refused": body_of(error)}, status_of(error))

    def twin(request: Request) -> Reply:
        return Reply(view(request))

    show.__doc__ = f"Console: {(view.__doc__ or template).strip().splitlines()[0]}"
    twin.__doc__ = f"{show.__doc__} As JSON."
    written = Route("GET", f"{ROOT}{path}.json", permission, twin, bound=bound, narrows=narrows)
    return [written, *shown(path, show, permission, bound, narrows)]


def shown(
    path: str, handler: Handler, permission: Permission = Permission.READ, bound: Bound = Bound.PROJECT,
    narrows: bool = False,
) -> list[Route]:  # fmt: skip
    """The route of something that people look at: its errors are pages, unless the caller prefers JSON."""

    @wraps(handler)
    def careful(request: Request) -> Reply:
        try:
            return handler(request)
        except InstarError as error:
            if wants_json(request):
                raise
            return html("error.html", {"error": body_of(error), "project": None}, status_of(error))

    return [Route("GET", f"{ROOT}{path}", permission, careful, page=True, bound=bound, narrows=narrows)]


def wants_json(request: Request) -> bool:
    """Whether the caller prefers the twin: it names JSON, and does not name HTML before it."""
    accept = request.headers.get("accept", "")
    json_at, html_at = accept.find("application/json"), accept.find("text/html")
    return json_at >= 0 and (html_at < 0 or json_at < html_at)


def html(template: str, view: Mapping[str, Any], status: int = 200) -> Reply:
    """A page, rendered."""
    text = _environment().get_template(template).render(view)
    return Reply(text.encode(), status, "text/html; charset=utf-8", PAGE_HEADERS)


def redirect(location: str) -> Reply:
    """See another page."""
    return Reply(b"", 303, "text/plain", {"location": location, "cache-control": "no-store"})


def url(*parts: object) -> str:
    """The path of a page of the console, each part quoted: `url("flights", "models", "delay", 3)`."""
    return "/".join([ROOT, *(quote(str(part), safe="@") for part in parts)])


def asking(asked: Mapping[str, str], **more: str) -> str:
    """The query string of a page that asks so; what is empty is left out."""
    given = {name: value for name, value in {**asked, **more}.items() if value}
    return "?" + urlencode(given) if given else ""


def value_of(run: Run, kind: str, name: str) -> str:
    """One cell of the list of runs: a metric, a parameter or a tag, or that the run has none."""
    value = getattr(run, kind).get(name)
    if value is None:
        return "–"
    return logged(value) if kind == "metrics" else str(value)


def report_url(project: str, evaluation: str) -> str:
    """Where the API shows the kept report of an evaluation, shut in by a policy of its own."""
    return f"/api/projects/{quote(project)}/evaluations/{quote(evaluation)}/report"


def linked(value: object, project: str) -> Markup:
    """A text in which every id of a record is a link to its page, and every digest is cut."""
    text = "" if value is None else str(value)
    parts, end = [], 0
    for found in _RECORD.finditer(text):
        name = found.group()
        parts += [escape(text[end : found.start()]), _link(project, name) if "_" in name else Markup(short(name))]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])]) if text else Markup("–")


def record(name: str | None, project: str) -> Markup:
    """The id of a record, with a link where there is a page for it."""
    if not name:
        return Markup("–")
    return _link(project, name) if _RECORD.fullmatch(name) else Markup("<code>{}</code>").format(name)


def _link(project: str, name: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(url(project, "records", name), Markup(short(name)))


_RECORD = re.compile(
    r"(?<!\w)(?:(?:tver|exec|run|mver|eval|appr|prev|roll|actn|alrt|stdy)_[0-9A-HJKMNP-TV-Z]{26}|b3:[0-9a-f]{64})(?!\w)"
)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        url=url,
        report_url=report_url,
        asking=asking,
        value_of=value_of,
        compared=comparison_page.view,
        tuned=tuning_page.view,
    )
    environment.filters.update(FILTERS, linked=linked, record=record)
    return environment
