from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instar.core.errors import BadInput, Blocked, Conflict, NotFound
from instar.core.store import Store
from instar.operate import rollout, rollout_walk, traffic
from instar.operate.rollout_rule import Terms
from instar.operate.traffic import Change
from instar.release import approval
from instar.release.registry import ModelVersion
from instar.serve.traffic import routing
from instar.serve.traffic.policy import Arm, Canary, Condition, Policy, Rule, Shadow
from tests.operate.test_promotion import promote, silent

Make = Callable[..., ModelVersion]
TERMS = Terms(
    shadow=100, steps=(10, 100), bake=timedelta(hours=6), patience=timedelta(days=14), cool_down=timedelta(days=7),
    cost=0.05, errors=0.01, no_worse=0.02, min_rows=200, refit=True,
)  # fmt: skip
BETA = Condition(header="x-beta")


def now(store: Store) -> Policy:
    return traffic.current(store, "flights", "delay").policy


def change(store: Store, draft: Policy, **more: Any) -> Change:
    return traffic.change(store, "flights", "delay", draft, "for a test", publish=silent, **more)


def edit(policy: Policy, **parts: Any) -> Policy:
    return msgspec.structs.replace(policy, **parts)


@pytest.fixture
def versions(store: Store, make_version: Make) -> list[ModelVersion]:
    """Three approved versions, of which the first answers, and a fourth that nobody approved."""
    made = [make_version("one"), make_version("two"), make_version("three"), make_version("four", approved=False)]
    promote(store, made[0])
    return made


def test_a_change_is_a_revision_with_who_why_and_the_evidence(store: Store, versions: list[ModelVersion]) -> None:
    done = change(store, traffic.with_weights(now(store), {1: 60, 2: 40}))
    assert done.revision is not None
    assert (done.revision.actor, done.revision.cause) == ("ada", "for a test")
    assert done.policy.shares() == [(1, "champion", 60.0), (2, "arm v2", 40)]
    assert done.revision.bundles == {1: versions[0].bundle, 2: versions[1].bundle}
    assert change(store, now(store)).revision is None  # the same again is none
    assert now(store).number == 2


def test_a_dry_run_changes_nothing(store: Store, versions: list[ModelVersion]) -> None:
    done = change(store, traffic.with_shadow(now(store), Shadow(2)), dry_run=True)
    assert (done.revision, done.policy.shadows) == (None, (Shadow(2),))
    assert now(store).number == 1
    with pytest.raises(Blocked, match="approval"):
        change(store, traffic.with_weights(now(store), {4: 5}), dry_run=True)


def test_an_approval_is_asked_of_whoever_comes_to_answer_more_callers(
    store: Store, versions: list[ModelVersion]
) -> None:
    policy = now(store)
    for draft in (
        edit(policy, champion=4),
        edit(policy, canary=Canary(4, 1)),
        edit(policy, arms=(Arm("b", 4, 1),)),
        edit(policy, rules=(Rule("beta", (BETA,), 4),)),
        traffic.with_pin(policy, "airline", 4),
    ):
        with pytest.raises(Blocked, match="approval"):
            change(store, draft)
    change(store, traffic.with_shadow(policy, Shadow(4)))  # the record alone may hear it
    change(store, traffic.with_weights(now(store), {2: 40}))
    approval.withdraw(store, versions[1], "it smells")
    change(store, traffic.with_weights(now(store), {2: 30}))  # less is no new route
    with pytest.raises(Blocked, match="approval"):
        change(store, traffic.with_weights(now(store), {2: 31}))
    with pytest.raises(Blocked, match="approval"):
        change(store, edit(now(store), rules=(Rule("beta", (BETA,), arm="v2"),)))


def test_the_way_back_needs_no_approval_that_still_holds(store: Store, versions: list[ModelVersion]) -> None:
    change(store, edit(now(store), canary=Canary(2, 20)))
    change(store, edit(now(store), canary=None))
    assert traffic.back(store, "flights", "delay", "it was good", publish=silent).policy.canary == Canary(2, 20)
    back = traffic.back(store, "flights", "delay", "to the first", to=1, publish=silent)
    assert back.revision is not None
    assert (back.policy.number, back.policy.canary) == (5, None)
    assert back.revision.cause == "back to revision 1: to the first"
    approval.withdraw(store, versions[1], "it smells")
    with pytest.raises(Blocked, match="approval"):
        traffic.back(store, "flights", "delay", "again", to=2, publish=silent)
    with pytest.raises(NotFound):
        traffic.back(store, "flights", "delay", "again", to=9, publish=silent)


def test_a_change_of_who_answers_ends_the_rollout_and_one_of_rules_does_not(
    store: Store, versions: list[ModelVersion]
) -> None:
    walked = rollout_walk.start(store, "flights", "delay", versions[1], TERMS, "actn_1", publish=silent)
    done = change(store, edit(now(store), rules=(Rule("beta", (BETA,), 2),)))  # testers may hear the candidate
    assert done.ends is None
    assert rollout.running(store, "delay") is not None
    done = change(store, traffic.with_weights(now(store), {3: 10}), dry_run=True)
    assert done.ends == walked.id
    assert rollout.running(store, "delay") is not None
    done = change(store, traffic.with_weights(now(store), {3: 10}))
    assert done.ends == walked.id
    assert "ada set another policy" in rollout.get(store, walked.id).reason
    assert now(store).shadows == ()  # nobody's candidate any more
    with pytest.raises(Blocked, match="arms"):
        rollout_walk.start(store, "flights", "delay", versions[1], TERMS, "actn_2", publish=silent)
    after = promote(store, versions[1])
    assert (after.policy.arms, after.policy.rules) == ((), (Rule("beta", (BETA,), 2),))


def test_a_rollout_that_walks_keeps_the_rules(store: Store, versions: list[ModelVersion]) -> None:
    change(store, edit(traffic.with_pin(now(store), "airline", 1), sticky="caller"))
    rollout_walk.start(store, "flights", "delay", versions[1], TERMS, "actn_1", publish=silent)
    assert (now(store).rules[0].name, now(store).sticky) == ("pin airline", "caller")
    assert now(store).shadows == (Shadow(2, "candidate"),)


def test_who_decided_upon_an_old_policy_or_without_a_reason_is_told(store: Store, versions: list[ModelVersion]) -> None:
    with pytest.raises(Conflict, match="revision 1"):
        change(store, now(store), expected=7)
    with pytest.raises(BadInput, match="reason"):
        traffic.change(store, "flights", "delay", now(store), "  ", publish=silent)
    with pytest.raises(NotFound):
        change(store, edit(now(store), canary=Canary(9, 5)))
    with pytest.raises(NotFound):
        traffic.change(store, "other", "delay", now(store), "for a test", publish=silent)


def test_weights_name_the_whole_or_leave_the_rest_to_the_champion() -> None:
    policy = Policy("delay", "flights", 1, 1, Canary(2, 5), (Shadow(3), Shadow(4)), rules=(Rule("a", (BETA,), 5),))
    assert traffic.with_weights(policy, {3: 25}).shares() == [(1, "champion", 75.0), (3, "arm v3", 25)]
    made = traffic.with_weights(policy, {1: 70, 2: 20, 3: 10})
    assert (made.shadows, made.canary, made.rules) == ((Shadow(4),), None, policy.rules)
    named = edit(made, rules=(Rule("to v3", (BETA,), arm="v3"),))
    assert traffic.with_weights(named, {1: 100}).rules == ()
    assert traffic.with_weights(edit(made, arms=(Arm("blue", 3, 5),)), {3: 6}).arms == (Arm("blue", 3, 6),)
    with pytest.raises(BadInput, match="100 together"):
        traffic.with_weights(policy, {1: 70, 2: 20})


def test_shadows_and_pins_come_and_go() -> None:
    policy = Policy("delay", "flights", 1, 1)
    made = traffic.with_shadow(traffic.with_shadow(policy, Shadow(2)), Shadow(2, "half", 50))
    assert made.shadows == (Shadow(2, "half", 50),)
    assert traffic.without_shadow(made, 2) == policy
    with pytest.raises(NotFound):
        traffic.without_shadow(policy, 2)
    pinned = traffic.with_pin(traffic.with_pin(policy, "airline", 2), "airline", 3)
    assert [(rule.version, rule.reason) for rule in pinned.rules] == [(3, "pinned")]
    assert traffic.with_pin(pinned, "airline", None) == policy
    with pytest.raises(NotFound):
        traffic.with_pin(policy, "airline", None)


def test_the_command_line_shows_sets_and_goes_back(
    run: Any, store: Store, versions: list[ModelVersion], tmp_path: Path
) -> None:
    assert "delay@1  champion" in run("route", "show", "delay").output
    file = tmp_path / "policy.toml"
    text = run("route", "show", "delay", "--toml").output + "[[shadows]]\nversion = 4\nshare = 25\n"
    file.write_text(text)
    tried = run("route", "set", "delay", str(file), "--reason", "watch it", "--dry-run").output
    assert "+version = 4" in tried
    assert "nothing was changed" in tried
    done = run("route", "set", "delay", str(file), "--reason", "watch it").output
    assert "delay: policy 2, no gateway runs: it takes effect when one starts" in done
    run("route", "weights", "delay", "1=90", "delay@2=10", "--reason", "compare", "--expect", "2")
    run("route", "pin", "delay", "airline", "2", "--reason", "they asked")
    shown = run("route", "show", "delay").output
    assert "caller is airline -> delay@2  (pinned)" in shown
    assert "10 %  delay@2  arm v2" in shown
    assert "delay@4  shadow, 25 % of the calls" in shown
    run("route", "unpin", "delay", "airline", "--reason", "no more")
    run("route", "shadow", "rm", "delay", "4", "--reason", "seen enough")
    run("route", "shadow", "add", "delay", "3", "--share", "50", "--reason", "another")
    run("route", "back", "delay", "--to", "1")
    assert now(store).versions == (1,)
    history = json.loads(run("route", "history", "delay", "--json").output)
    assert [one["cause"] for one in history][-2:] == ["another", "back to revision 1: by hand"]
    assert history[1]["policy"]["shadows"] == [{"version": 4, "role": "shadow", "share": 25}]
    assert history[1]["bundles"]["4"] == versions[3].bundle
    assert "1  " in run("route", "history", "delay").output
    with pytest.raises(Conflict):
        run("route", "weights", "delay", "2=10", "--reason", "late", "--expect", "1")
    for wrong in ("2", "2=x", "=5", "two=5"):
        with pytest.raises(BadInput):
            run("route", "weights", "delay", wrong, "--reason", "wrong")


def test_an_endpoint_may_begin_with_a_whole_policy(run: Any, store: Store, make_version: Make, tmp_path: Path) -> None:
    make_version("one")
    file = tmp_path / "policy.json"
    file.write_text('{"champion": 1}')
    run("route", "set", "delay", str(file), "--reason", "the first", "--json")
    assert routing.history(store, "delay")[0].cause == "the first"
