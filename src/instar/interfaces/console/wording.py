"""How values of records read on a page: numbers, times, ids and whole records in words, escaped wherever they are text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from markupsafe import Markup, escape

# Facts of journal entries, the more telling first.
HEADLINES = (
    "version", "table", "number", "rows", "endpoint", "candidate", "metric", "verdict", "state", "stage", "reason", "value",
    "policy", "problem", "objective", "origin", "cause", "kind", "step", "text",
)  # fmt: skip

SHORT = 60  # letters of a fact that fits a line

_TIME, _MINUTE = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\S+"), r"\1 \2"
# Metrics of runs by which people choose, the first ones first.
DECIDING = ("cost", "auc", "log_loss", "brier")


def when(moment: datetime | None) -> Markup | str:
    """A time for people, in UTC to the minute, and exactly for machines."""
    if moment is None:
        return "–"
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(utc.isoformat(), utc.strftime("%Y-%m-%d %H:%M"))


def figure(value: float | None, digits: int = 4) -> str:
    """A number for people: whole ones with thousands apart, others to `digits` significant places."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    if 1e-4 <= abs(value) < 1e6:
        return f"{value:,.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}".replace("-", "−")
    return f"{value:.{digits - 1}g}".replace("-", "−")


def logged(value: float, digits: int = 4) -> str:
    """A metric as it was logged: NaN is a value that somebody logged, and not one that is missing."""
    return "NaN" if math.isnan(value) else figure(value, digits)


def percent(value: float | None, digits: int = 1) -> str:
    """A share of 1 in per cent."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %".replace("-", "−")


def short(name: str | None, keep: int = 10) -> Markup | str:
    """A long id or digest, cut for the eye; whole in the title, so that it can be copied."""
    if not name:
        return "–"
    prefix, mark, rest = name.partition("_") if "_" in name[:6] else name.partition(":")
    if not mark or len(rest) <= keep:
        return Markup("<code>{}</code>").format(name)
    # Ids begin with the time and so look alike: their end tells them apart. Digests differ anywhere.
    cut = f"{prefix}_…{rest[-keep:]}" if mark == "_" else f"{prefix}:{rest[:keep]}…"
    return Markup('<code title="{}">{}</code>').format(name, cut)


def span(value: timedelta | float | None) -> str:
    """A length of time for people, from seconds or a timedelta."""
    if value is None:
        return "–"
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def plain(value: Any) -> Markup | str:
    """Any value of a record as text: numbers, times and lists each in their own way."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.6g}".replace("-", "−")
    if isinstance(value, bool | int | float):
        return figure(value)
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return span(value)
    if isinstance(value, Mapping):
        return Markup(", ").join(Markup("{} {}").format(key, plain(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return Markup(", ").join(escape(plain(item)) for item in value)
    text = _TIME.sub(_MINUTE, str(value)) if isinstance(value, str) and _TIME.fullmatch(value) else str(value)
    return short(text) if text.startswith("b3:") else text


def size(count: int) -> str:
    """A number of bytes for people, in powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def headline(body: Mapping[str, Any]) -> str:
    """The few facts of a journal entry that say most, on one line."""
    known = {name: body[name] for name in HEADLINES if body.get(name) not in (None, "", [], {})}
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in known.items() if len(str(value)) <= SHORT]
    return ", ".join(facts[:4]) or ", ".join(sorted(body))


def brief(text: str, length: int = 180) -> str:
    """The beginning of a long reason, up to the end of one of its parts, and how many more there are."""
    if len(text) <= length:
        return text
    parts = text.split("; ")
    kept = [parts[0]]
    for part in parts[1:]:
        if len("; ".join([*kept, part])) > length:
            break
        kept.append(part)
    return f"{'; '.join(kept)}; and {len(parts) - len(kept)} more" if len(parts) > len(kept) else text


def telling(metrics: Mapping[str, float], most: int = 3) -> list[tuple[str, float]]:
    """The metrics of a run that a list has room for: those that decide first, then by name."""
    order = {name: place for place, name in enumerate(DECIDING)}
    return sorted(metrics.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))[:most]


def facts_line(facts: Mapping[str, Any], length: int = 110) -> str:
    """The first facts of a record that are short, on one line; times to the minute."""
    shown = []
    for name, value in facts.items():
        text = f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else str(value)
        if isinstance(value, str | int | float) and len(text) <= SHORT:
            shown.append(f"{name.replace('_', ' ')} {_TIME.sub(_MINUTE, text)}")
    line = ", ".join(shown)
    return line if len(line) <= length else line[:length].rsplit(",", 1)[0] + ", …"


def pretty(value: Any) -> str:
    """A JSON value over several lines."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


# What the templates know these by.
FILTERS: dict[str, Callable[..., object]] = {
    "brief": brief,
    "bytes": size,
    "facts_line": facts_line,
    "figure": figure,
    "headline": headline,
    "logged": logged,
    "percent": percent,
    "plain": plain,
    "pretty": pretty,
    "short": short,
    "span": span,
    "telling": telling,
    "when": when,
}
