"""`instar route`: see and change the traffic of an endpoint: weights, rules, pinned callers, shadows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from instar.interfaces.cli.groups import Group
from instar.interfaces.cli.tables import cell, print_table

if TYPE_CHECKING:
    from instar.operate.differences import Differences, Part
    from instar.operate.traffic import Change
    from instar.serve.traffic.policy import Policy
    from instar.serve.traffic.routing import Revision

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
BAR = 30  # letters of a bar that stands for all calls

Edit = Callable[["Policy"], "Policy"]


def _changing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every change."""
    for option in (
        AS_JSON,
        click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing."),
        click.option("--expect", type=click.IntRange(0), help="Number of the policy that you looked at: else refused."),
        click.option("--reason", required=True, help="Why, for the record."),
    ):
        command = option(command)
    return command


@click.group("route", cls=Group)
def route() -> None:
    """Show and change the traffic of an endpoint."""


@route.command("show")
@click.argument("endpoint")
@click.option("--toml", "as_toml", is_flag=True, help="Print the policy as `instar route set` takes it.")
@AS_JSON
@click.pass_obj
def show(project: str | None, endpoint: str, as_toml: bool, as_json: bool) -> None:
    """Show who answers which calls of ENDPOINT."""
    from instar.app import open_app
    from instar.operate import traffic
    from instar.serve.traffic import policy_document

    with open_app(project, need_project=False, make=False) as app:
        found = traffic.current(app.store, app.project_name, endpoint)
    if as_json:
        click.echo(json.dumps(described(found), indent=2))
    elif as_toml:
        click.echo(policy_document.toml(found.policy), nl=False)
    else:
        click.echo(f"{endpoint}: policy {found.policy.number} since {found.event_at:%Y-%m-%d %H:%M}Z by {found.actor}")
        click.echo(f"  because: {found.cause}\n")
        click.echo("\n".join(picture(found.policy)))


@route.command("set")
@click.argument("endpoint")
@click.argument("file", type=click.File("rb"))
@_changing
@click.pass_obj
def set_command(project: str | None, /, endpoint: str, file: Any, **options: Any) -> None:
    """Make the policy in FILE (TOML or JSON; - is standard input) that of ENDPOINT."""
    from instar.serve.traffic import policy_document

    document = policy_document.read(file.read(), file.name)
    _change(project, endpoint, lambda now: document.draft(now.project, endpoint), new=True, **options)


@route.command("weights")
@click.argument("endpoint")
@click.argument("weights", nargs=-1, required=True, metavar="VERSION=PERCENT...")
@_changing
@click.pass_obj
def weights_command(project: str | None, /, endpoint: str, weights: tuple[str, ...], **options: Any) -> None:
    """Share the calls of ENDPOINT between versions; the champion has what the others leave."""
    from instar.operate import traffic

    given = dict(_weight(text) for text in weights)
    _change(project, endpoint, lambda now: traffic.with_weights(now, given), **options)


@route.group("shadow", cls=Group)
def shadow() -> None:
    """Versions that answer on the record only."""


@shadow.command("add")
@click.argument("endpoint")
@click.argument("version", type=click.IntRange(1))
@click.option("--share", type=float, default=100.0, show_default=True, help="Of the calls, in per cent.")
@click.option("--role", default="shadow", show_default=True, help="What it is there for.")
@_changing
@click.pass_obj
def shadow_add(project: str | None, /, endpoint: str, version: int, share: float, role: str, **options: Any) -> None:
    """Let VERSION answer calls of ENDPOINT on the record only."""
    from instar.operate import traffic
    from instar.serve.traffic.policy import Shadow

    _change(project, endpoint, lambda now: traffic.with_shadow(now, Shadow(version, role, share)), **options)


@shadow.command("rm")
@click.argument("endpoint")
@click.argument("version", type=click.IntRange(1))
@_changing
@click.pass_obj
def shadow_rm(project: str | None, /, endpoint: str, version: int, **options: Any) -> None:
    """Ask the shadow VERSION of ENDPOINT no more."""
    from instar.operate import traffic

    _change(project, endpoint, lambda now: traffic.without_shadow(now, version), **options)


@route.command("pin")
@click.argument("endpoint")
@click.argument("caller")
@click.argument("version", type=click.IntRange(1))
@_changing
@click.pass_obj
def pin(project: str | None, /, endpoint: str, caller: str, version: int, **options: Any) -> None:
    """Have all calls of CALLER at ENDPOINT answered by VERSION."""
    from instar.operate import traffic

    _change(project, endpoint, lambda now: traffic.with_pin(now, caller, version), **options)


@route.command("unpin")
@click.argument("endpoint")
@click.argument("caller")
@_changing
@click.pass_obj
def unpin(project: str | None, /, endpoint: str, caller: str, **options: Any) -> None:
    """Route the calls of CALLER at ENDPOINT as all others."""
    from instar.operate import traffic

    _change(project, endpoint, lambda now: traffic.with_pin(now, caller, None), **options)


@route.command("history")
@click.argument("endpoint")
@AS_JSON
@click.pass_obj
def history(project: str | None, endpoint: str, as_json: bool) -> None:
    """List all policies of ENDPOINT, the latest first: who changed what, when and why."""
    from instar.app import open_app
    from instar.operate import traffic
    from instar.serve.traffic import routing

    with open_app(project, need_project=False, make=False) as app:
        traffic.current(app.store, app.project_name, endpoint)
        found = routing.history(app.store, endpoint)
    if as_json:
        click.echo(json.dumps([described(one) for one in found], indent=2))
        return
    rows = [
        [str(one.policy.number), f"{one.event_at:%Y-%m-%d %H:%M}", one.actor, in_short(one.policy), one.cause]
        for one in reversed(found)
    ]
    print_table(["policy", "since", "by", "who answers", "because"], rows)


@route.command("back")
@click.argument("endpoint")
@click.option("--to", type=click.IntRange(1), help="Number of the policy; default the one before.")
@click.option("--reason", default="by hand", show_default=True, help="Why, for the record.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@AS_JSON
@click.pass_obj
def back(project: str | None, endpoint: str, to: int | None, reason: str, dry_run: bool, as_json: bool) -> None:
    """Return to an earlier policy of ENDPOINT as a whole; it becomes a new one. `instar rollback` changes the champion alone."""
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.operate import traffic

    with open_app(project, need_project=False, make=False) as app:
        require(app.store.actor, Permission.OPERATE)
        done = traffic.back(app.store, app.project_name, endpoint, reason, to=to, dry_run=dry_run)
        _say(app.store, done, as_json)


@route.command("compare")
@click.argument("endpoint")
@click.option(
    "--versions", nargs=2, type=click.IntRange(1), help="Two versions; default the champion and who is beside it."
)
@click.option("--since", help="Event time, as in 2013-06-01; default seven days before the end.")
@click.option("--until", help="Event time; default now.")
@click.option("--by", multiple=True, help="An input by whose values the calls are parted; default those of few values.")
@AS_JSON
@click.pass_obj
def compare(
    project: str | None, endpoint: str, versions: tuple[int, ...] | None, since: str | None, until: str | None,
    by: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Say where two versions of ENDPOINT differ on the same calls: a champion and its shadow or canary."""
    from instar.app import open_app
    from instar.interfaces.moments import moment_of
    from instar.operate import differences, traffic
    from instar.serve.log.calls import CallLog

    with open_app(project, need_project=False, make=False) as app:
        policy = traffic.current(app.store, app.project_name, endpoint).policy
        first, second = differences.two_versions(policy, versions or ())
        end = moment_of(until) if until else app.store.clock.event()
        start = moment_of(since) if since else end - differences.SPAN
        found = differences.compare(CallLog(app.store), endpoint, first, second, since=start, until=end, by=by)
    if as_json:
        click.echo(json.dumps(differences.document(found), indent=2))
    else:
        _print_differences(found)


def _print_differences(found: Differences) -> None:
    name, (one, other) = found.endpoint, found.versions
    rows = [
        [
            f"{name}@{said.version}", str(said.asked), str(said.failed), str(said.returned), cell(said.positive),
            cell(said.mean_score), cell(said.latency_ms[0]), cell(said.latency_ms[1]),
        ]
        for said in found.versions
    ]  # fmt: skip
    print_table(["version", "asked", "failed", "returned", "decided 1", "mean score", "p50 ms", "p99 ms"], rows)
    if found.note:
        click.echo(f"\n{found.note}")
    if not found.whole.pairs:
        return
    click.echo(f"\n{found.whole.pairs} predictions that both answered, @{other.version} against @{one.version}:")
    header = ["part", "pairs", "decided otherwise", "95 %", "score difference", "95 %"]
    print_table(header, [_part_row(part) for part in (found.whole, *found.slices)])
    click.echo("\nfarthest apart:")
    header = ["prediction", "at", f"@{one.version}", f"@{other.version}", "decisions"]
    print_table(header, [
        [far.prediction, f"{far.at:%Y-%m-%d %H:%M}", *(cell(score) for score in far.scores),
         " / ".join("-" if said is None else str(said) for said in far.decisions)]
        for far in found.worst
    ])  # fmt: skip


def _part_row(part: Part) -> list[str]:
    share, apart = part.disagreement, part.difference
    return [
        part.name, str(part.pairs), f"{100 * share.mean:.3g} %" if share.n else "-",
        f"{100 * share.low:.3g} to {100 * share.high:.3g} %" if share.n else "-",
        f"{apart.mean:+.4g}" if math.isfinite(apart.mean) else "-",
        f"{apart.low:+.4g} to {apart.high:+.4g}" if math.isfinite(apart.low) else "-",
    ]  # fmt: skip


def _change(
    project: str | None, endpoint: str, edit: Edit, *, reason: str, expect: int | None, dry_run: bool, as_json: bool,
    new: bool = False,
) -> None:  # fmt: skip
    from instar.app import open_app
    from instar.core.identity import Permission, require
    from instar.operate import traffic
    from instar.serve.traffic import routing
    from instar.serve.traffic.policy import Policy

    with open_app(project, need_project=False, make=False) as app:
        require(app.store.actor, Permission.OPERATE)
        name = app.project_name
        if new and routing.current(app.store, endpoint) is None:
            policy = Policy(endpoint, name, 0, None)
        else:
            policy = traffic.current(app.store, name, endpoint).policy
        done = traffic.change(
            app.store, name, endpoint, edit(policy), reason,
            expected=policy.number if expect is None else expect, dry_run=dry_run,
        )  # fmt: skip
        _say(app.store, done, as_json)


def _say(store: Any, done: Change, as_json: bool) -> None:
    from instar.serve.publishing import building
    from instar.serve.traffic import policy_document

    effect = building.take_effect(store, lambda text: click.echo(text, err=True)) if done.revision is not None else None
    difference = policy_document.difference(done.before.policy if done.before else None, done.policy)
    if as_json:
        document = {
            "difference": difference,
            "ends": done.ends,
            "revision": described(done.revision) if done.revision is not None else None,
            "effect": effect.document() if effect is not None else None,
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(difference or "that is its policy already: nothing changes")
    if done.ends is not None:
        what = "ended as superseded" if done.revision is not None else "would end as superseded"
        click.echo(f"rollout {done.ends} {what}")
    if done.revision is not None and effect is not None:
        click.echo(f"{done.policy.endpoint}: policy {done.policy.number}, {effect.words}")
    elif difference:
        click.echo("nothing was changed")


def described(revision: Revision) -> dict[str, Any]:
    """A policy revision as JSON: who, when, why, and the bundle of each version: what was deployed, in one document."""
    import msgspec

    return {
        "id": revision.id,
        "policy": msgspec.to_builtins(revision.policy),
        "bundles": {str(version): digest for version, digest in revision.bundles.items()},
        "actor": revision.actor,
        "cause": revision.cause,
        "event_at": revision.event_at.isoformat(),
        "recorded_at": revision.recorded_at.isoformat(),
    }


def picture(policy: Policy) -> list[str]:
    """A policy for a terminal: rules in their order, shares as bars, shadows."""
    name, lines = policy.endpoint, []
    if policy.rules:
        lines.append("first, the first of these that fits:")
        for rule in policy.rules:
            to = f"{name}@{rule.version}" if rule.version is not None else f"arm {rule.arm}"
            lines.append(f"  {' and '.join(map(str, rule.when))} -> {to}  ({rule.reason})")
        lines.append("then, of all other calls:")
    if policy.champion is None:
        lines.append("  nobody answers: calls get status 503")
    for version, place, share in policy.shares():
        filled = round(share / 100 * BAR)
        bar = "█" * filled + "·" * (BAR - filled)
        lines.append(f"  {bar} {share:6.4g} %  {name}@{version}  {place}")
    if policy.arms or policy.canary is not None:
        by = {"key": "header Instar-Key", "caller": "caller"}.get(policy.sticky, policy.sticky.replace(":", " "))
        lines.append(f"  calls with the same {by} stay on their side")
    if policy.canary is not None:
        lines.append(f"  the canary's share is on a lease of {policy.canary.lease:g} s")
    if policy.shadows:
        lines.append("on the record only:")
        for one in policy.shadows:
            lines.append(f"  {name}@{one.version}  {one.role}, {one.share:g} % of the calls")
    if policy.retiring is not None:
        lines.append(f"kept loaded until {_wall(policy.retiring.until)}: {name}@{policy.retiring.version}")
    return lines


def in_short(policy: Policy) -> str:
    """Who answers, in one line."""
    parts = [f"@{version} {share:g} % {place}" for version, place, share in policy.shares()] or ["nobody"]
    parts += [f"{len(policy.rules)} rules"] if policy.rules else []
    parts += [f"shadows {', '.join(f'@{one.version}' for one in policy.shadows)}"] if policy.shadows else []
    return "; ".join(parts)


def _wall(microseconds: int) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(microseconds / 1e6, UTC):%Y-%m-%d %H:%M}Z"


def _weight(text: str) -> tuple[int, float]:
    from instar.core.errors import BadInput

    version, mark, weight = text.rpartition("=")
    try:
        found = int(version.rpartition("@")[2]), float(weight)
    except ValueError:
        found, mark = (0, 0.0), ""
    if not mark:
        raise BadInput("that is no weight", found=repr(text), asked="VERSION=PERCENT, as in 3=90")
    return found


commands: dict[str, click.Command] = {"route": route}
