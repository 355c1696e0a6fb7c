"""The demo's report on a terminal: tables where there is one, plain lines where the output goes elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from instar.interfaces.demo.figures import WAYS
from instar.interfaces.demo.report import ALERT

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MOST_ALERTS, LONGEST_LINE = 12, 170  # the page and the JSON have all of it


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the report."""
    if console.is_terminal:
        console.print(_months_table(report))
        for line in summary(report):
            console.print(line, highlight=False, markup=False)
        return
    for line in (*month_lines(report), *summary(report)):
        # A line is a line: whoever reads a pipe wants no wrapping, no markup and no colour.
        console.out(line, highlight=False)


def month_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The months as lines of fixed width, with a head."""
    yield f"{'month':<8}{'rows':>8}{'late':>7}{'champion':>10}{'AUC':>7}" + "".join(f"{way:>9}" for way in WAYS)
    for month in report["months"]:
        yield (
            f"{month['month']:<8}{month['rows']:>8}{_percent(month['late_share']):>7}"
            f"{_version(month['champion']):>10}{_number(month['auc'], 3):>7}"
            + "".join(f"{_number(month['cost'][way], 4):>9}" for way in WAYS)
        )
    totals = report["totals"]
    yield (
        f"{'all':<8}{totals['predictions']:>8}{_percent(totals['late_share']):>7}{'':>10}{_number(totals['auc'], 3):>7}"
        + "".join(f"{_number(totals['cost'][way], 4):>9}" for way in WAYS)
    )


def summary(report: Mapping[str, Any]) -> Iterator[str]:
    """What the year comes to, in words."""
    totals, late = report["totals"], report["july_to_december"]
    yield ""
    yield f"cost: {report['unit']} per flight; " + "; ".join(f"{way}: {report['ways'][way]}" for way in WAYS)
    yield (
        f"{totals['predictions']} predictions, {totals['outcomes']} outcomes; {totals['without_outcome']} flights were "
        "cancelled or diverted, were predicted too, and never got an outcome"
    )
    retrainings = totals["retrainings"]
    yield (
        f"{retrainings['loop']} retrainings of the loop, {retrainings['monthly']} of the monthly way; "
        f"{totals['promotions']} promotions, {totals['rejections']} rejections, {totals['rollbacks']} rollbacks, "
        f"{totals['alerts']} alerts"
    )
    for target in report["comparison"]["targets"]:
        found = target["found"] if isinstance(target["found"], int) else _signed(target["found"])
        word = {True: "met", False: "MISSED", None: "cannot be said"}[target["met"]]
        yield f"target {word}: {target['name']} ({target['asked']}): {found}"
    if late is not None:
        yield (
            f"July to December apart: {_signed(late['to_frozen'])} to frozen, {_signed(late['to_monthly'])} to monthly, "
            f"over {late['outcomes']} outcomes"
        )
    yield from _events(report)
    yield from _trace(report["trace"])
    yield f"took {report['seconds']:.0f} s"


def _events(report: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    alerts = 0
    for event in report["events"]:
        if event["kind"] == ALERT:
            alerts += 1
            if alerts > MOST_ALERTS:
                continue
        yield _cut(f"{event['at'][:10]}  {event['kind']:<11} {event['subject']}: {event['text']}")
    if alerts > MOST_ALERTS:
        yield f"            and {alerts - MOST_ALERTS} more alerts, all of them on the page and in the JSON"


def _trace(trace: Mapping[str, Any]) -> Iterator[str]:
    for title, key in (("trace of one wrong prediction", "back"), ("what one table version touched", "forward")):
        lines = trace.get(key)
        if lines:
            yield ""
            yield f"{title}:"
            yield from (f"  {line}" for line in lines)
    yield ""


def _months_table(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title=f"Late flights of 2013, {report['unit']} per flight", title_justify="left")
    for name in ("month", "rows", "late", "champion", "AUC", *WAYS):
        table.add_column(name, justify="left" if name == "month" else "right")
    for month in report["months"]:
        cost = [_number(month["cost"][way], 4) for way in WAYS]
        table.add_row(
            month["month"], str(month["rows"]), _percent(month["late_share"]), _version(month["champion"]),
            _number(month["auc"], 3), *cost,
        )  # fmt: skip
    totals = report["totals"]
    table.add_section()
    table.add_row(
        "all", str(totals["predictions"]), _percent(totals["late_share"]), "", _number(totals["auc"], 3),
        *(_number(totals["cost"][way], 4) for way in WAYS),
    )  # fmt: skip
    return table


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


def _version(number: int | None) -> str:
    return "-" if number is None else f"@{number}"
