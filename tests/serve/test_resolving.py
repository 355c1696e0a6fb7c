from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from instar.serve.traffic.policy import Arm, Canary, Condition, Policy, Route, Rule
from instar.serve.traffic.resolving import Headers, Resolver, position, sampled

keys = st.text(max_size=20)
KEYS = [f"flight {n}" for n in range(4000)]


def policy(champion: int | None = 1, **parts: object) -> Policy:
    return Policy("delay", "flights", 1, champion, **parts)  # type: ignore[arg-type]


def canary(share: float | None, champion: int | None = 1) -> Policy:
    return policy(champion, canary=None if share is None else Canary(2, share))


def choose(
    of: Policy, key: str | None, call: str = "call_1", caller: str = "ada", headers: Headers = ()
) -> Route | None:
    return Resolver(of).route(key, call, caller, headers)


@settings(max_examples=100, deadline=None)
@given(keys, st.floats(0, 100), st.floats(0, 100))
def test_a_growing_share_only_adds_keys(key: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if choose(canary(small), key) == Route(2, "canary"):
        assert choose(canary(large), key) == Route(2, "canary")


@given(keys)
def test_no_share_and_the_whole_share_mean_what_they_say(key: str) -> None:
    assert choose(canary(0), key) == choose(canary(None), key) == Route(1, "champion")
    assert choose(canary(100), key) == Route(2, "canary")
    assert choose(canary(None, champion=None), key) is None
    assert choose(policy(arms=(Arm("all", 2, 100),)), key) == Route(2, "arm all")
    assert choose(policy(arms=(Arm("none", 2, 0),)), key) == Route(1, "champion")


def test_a_share_is_met_and_endpoints_are_independent() -> None:
    taken = [key for key in KEYS if choose(canary(25), key) == Route(2, "canary")]
    assert 0.22 < len(taken) / len(KEYS) < 0.28
    assert 0.2 < sum(position("other", key) < 0.25 for key in taken) / len(taken) < 0.3


weights = st.lists(st.integers(1, 30), min_size=1, max_size=3)


def arms(*given: float) -> Policy:
    return policy(arms=tuple(Arm(f"arm {n}", n + 2, weight) for n, weight in enumerate(given)))


@settings(max_examples=20, deadline=None)
@given(weights)
def test_weights_hold_within_what_chance_allows(given: list[int]) -> None:
    resolver = Resolver(arms(*given))
    counts = Counter(route.version for key in KEYS if (route := resolver.route(key, "", "", ())) is not None)
    for version, weight in ((1, 100 - sum(given)), *((n + 2, weight) for n, weight in enumerate(given))):
        share, n = weight / 100, len(KEYS)
        assert abs(counts[version] - share * n) <= 5 * math.sqrt(n * share * (1 - share)) + 1


@settings(max_examples=20, deadline=None)
@given(weights, st.integers(1, 100))
def test_when_one_weight_grows_keys_move_to_that_arm_alone(given: list[int], grown: int) -> None:
    """One arm takes from all others in proportion to what they have: nobody else's calls move."""
    share = min(grown, 100) / 100
    whole = [100.0 - sum(given), *map(float, given)]
    after = [weight * (1 - share) for weight in whole]
    after[-1] += 100.0 * share
    old, new = Resolver(arms(*given)), Resolver(arms(*after[1:]))
    moved = 0
    for key in KEYS[:1000]:
        one, other = old.route(key, "", "", ()), new.route(key, "", "", ())
        if one != other:
            moved += 1
            assert other is not None
            assert other.version == len(given) + 1
    taken = share * (100.0 - whole[-1]) / 100
    assert abs(moved - 1000 * taken) <= 5 * math.sqrt(1000 * taken * (1 - taken)) + 1


headers = st.lists(
    st.tuples(st.sampled_from([b"x-beta", b"instar-tag", b"x-session", b"accept"]), st.binary(max_size=8)), max_size=4
)
conditions = st.sampled_from(
    [
        Condition(header="x-beta"), Condition(header="x-beta", equals="yes"), Condition(header="x-beta", prefix="y"),
        Condition(tag="site"), Condition(tag="site", equals="eu"), Condition(caller="ada"),
    ]
)  # fmt: skip
rules = st.lists(st.builds(lambda one, n: Rule(f"r{n}", (one,), n), conditions, st.integers(2, 9)), max_size=4)


@given(
    st.one_of(st.none(), keys), keys, headers, rules,
    st.sampled_from(["key", "caller", "header:x-session"]), st.sampled_from(["ada", "ravi"]),
)  # fmt: skip
def test_every_call_has_a_route_that_was_announced_and_always_the_same(
    key: str | None, call: str, given: list[tuple[bytes, bytes]], some: list[Rule], sticky: str, caller: str
) -> None:
    made = policy(arms=(Arm("b", 5, 30), Arm("c", 6, 30)), rules=tuple(some), sticky=sticky)
    resolver = Resolver(made)
    found = resolver.route(key, call, caller, given)
    assert found in resolver.routes
    assert found == Resolver(made).route(key, call, caller, given)


def test_the_first_rule_that_fits_holds() -> None:
    made = policy(
        rules=(
            Rule("both", (Condition(header="x-beta", equals="yes"), Condition(caller="ada")), 2),
            Rule("beta", (Condition(header="x-beta", prefix="y"),), 3),
            Rule("eu", (Condition(tag="site", equals="eu"),), 4),
            Rule("tagged", (Condition(tag="debug"),), arm="b"),
            Rule("ravi", (Condition(caller="ravi"),), 6),
        ),
        arms=(Arm("b", 5, 0),),
    )
    beta = [(b"x-beta", b"yes")]
    assert choose(made, "k", caller="ada", headers=beta) == Route(2, "rule both")
    assert choose(made, "k", caller="ravi", headers=beta) == Route(3, "rule beta")
    assert choose(made, "k", headers=[(b"x-beta", b"no"), (b"x-beta", b"yes")]) == Route(1, "champion")
    assert choose(made, "k", headers=[(b"instar-tag", b"team=a, site=eu"), *beta[:0]]) == Route(4, "rule eu")
    assert choose(made, "k", headers=[(b"instar-tag", b"a=b"), (b"instar-tag", b"debug")]) == Route(5, "rule tagged")
    assert choose(made, "k", caller="ravi") == Route(6, "pinned")
    assert choose(made, "k") == Route(1, "champion")


def test_a_pinned_caller_is_answered_though_there_is_no_champion() -> None:
    made = policy(None, rules=(Rule("pin", (Condition(caller="ada"),), 3),))
    assert choose(made, None) == Route(3, "pinned")
    assert choose(made, None, caller="ravi") is None


def test_calls_stay_together_by_what_the_policy_says() -> None:
    half = (Arm("b", 5, 50),)
    by_caller, by_session = policy(arms=half, sticky="caller"), policy(arms=half, sticky="header:x-session")
    assert len({choose(by_caller, key, f"call_{n}") for n, key in enumerate(KEYS[:20])}) == 1
    assert len({choose(by_caller, None, caller=key) for key in KEYS[:40]}) == 2
    session = [(b"x-session", b"s1")]
    assert len({choose(by_session, key, f"call_{n}", headers=session) for n, key in enumerate(KEYS[:20])}) == 1
    assert len({choose(by_session, None, f"call_{n}") for n in range(40)}) == 2  # without one, by the call


def test_a_shadow_hears_its_share_of_the_calls() -> None:
    heard = [call for call in KEYS if sampled("delay", 3, 25, call)]
    assert 0.22 < len(heard) / len(KEYS) < 0.28
    assert all(sampled("delay", 3, 50, call) for call in heard)
    assert all(sampled("delay", 3, 100, call) for call in KEYS[:100])
    assert 0.2 < sum(sampled("delay", 4, 25, call) for call in heard) / len(heard) < 0.3


def test_the_plain_policy_needs_no_resolving() -> None:
    assert Resolver(policy()).plain
    assert not any(Resolver(one).plain for one in (canary(5), arms(5), policy(rules=(Rule("a", (), 1),))))
