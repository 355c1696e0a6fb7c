"""What routes need while nobody decides anything: canaries' leases are renewed, and champions of before are let go in time.

Done at each look of the controllers, after they have looked at an endpoint's rollout: a lease says that somebody watches. Where
one had lapsed meanwhile, gateways gave the canary's share back by themselves; that opens an alert, which the next look closes.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from instar.core.ids import new_id
from instar.core.store import Store
from instar.operate import alerts
from instar.operate.measurement import BREACH, OK, Measurement, keep
from instar.serve.publishing import snapshot
from instar.serve.traffic import leases, routing
from instar.serve.traffic.policy import Policy
from instar.serve.traffic.routes import routes_file

MONITOR = "canary_lease"


def look(
    store: Store, project: str, *, only: Collection[str] | None = None, but: Collection[str] = ()
) -> alerts.Changed:
    """Renew the leases of a project's canaries, and let go of champions whose time is over; safe to repeat.

    Args:
        only: Endpoints that were looked at; all of the project by default.
        but: Endpoints that are left out.
    """
    policies = [
        one.policy
        for one in routing.endpoints(store, project)
        if one.policy.endpoint not in but and (only is None or one.policy.endpoint in only)
    ]
    now = routing.microseconds(store.clock.wall())
    canaries = {one.endpoint: one.number for one in policies if one.canary is not None}
    before = leases.renew(store.folder, canaries, now)
    if _over(store, policies, now):
        snapshot.publish(store)
    changed = [_keep(store, project, one, before, now) for one in policies]
    return alerts.Changed(
        tuple(alert for one in changed for alert in one.opened), tuple(alert for one in changed for alert in one.closed)
    )


def _over(store: Store, policies: Collection[Policy], now: int) -> bool:
    """Did the time of a champion of before end since routes were published?"""
    times = [one.retiring.until for one in policies if one.retiring is not None]
    if not times:
        return False
    try:
        published = routes_file(store.folder).stat().st_mtime_ns // 1000
    except FileNotFoundError:
        return False
    return any(published < until <= now for until in times)


def _keep(store: Store, project: str, policy: Policy, before: dict[str, leases.Lease], now: int) -> alerts.Changed:
    found = _measured(store, project, policy, before, now)
    if found is None:
        return alerts.Changed()
    return store.database.write(
        lambda tx: alerts.update(tx, store.clock, store.actor, project, keep(tx, [found])), durable=True
    )


def _measured(
    store: Store, project: str, policy: Policy, before: dict[str, leases.Lease], now: int
) -> Measurement | None:
    """How long nobody had watched a canary; None where there is nothing to say."""
    canary, lease = policy.canary, before.get(policy.endpoint)
    silent = (now - lease.renewed) / 1e6 if lease is not None and lease.policy == policy.number else 0.0
    lapsed = canary is not None and silent > canary.lease
    loud = alerts.alerts(store, project, endpoint=policy.endpoint, state=alerts.OPEN)
    if not lapsed and not any(one.metric == MONITOR for one in loud):
        return None
    until = store.clock.event()
    return Measurement(
        id=f"{new_id('meas')}/{MONITOR}/{policy.endpoint}",
        project=project,
        endpoint=policy.endpoint,
        monitor=MONITOR,
        subject=policy.endpoint,
        window_start=until - timedelta(seconds=max(silent, 0.0)),
        window_end=until,
        value=silent,
        limit=canary.lease if canary is not None else silent,
        state=BREACH if lapsed else OK,
        n=0,
        outcomes_share=None,
        reference=None,
        cursor=None,
        detail={"why": "controllers were silent, so gateways had the champion answer alone"},
        recorded_at=store.clock.wall(),
    )
