from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.core.errors import BadInput
from instar.serve.traffic import policy_document
from instar.serve.traffic.policy import Arm, Canary, Condition, Policy, Retiring, Rule, Shadow
from instar.serve.traffic.policy_check import check
from instar.serve.traffic.policy_document import PolicyDocument

BETA = Condition(header="x-beta", equals="yes")
ARMS = (Arm("b", 5, 10),)

BAD: list[dict[str, Any]] = [
    {"endpoint": "../etc"},
    {"endpoint": ""},
    {"endpoint": "a" * 101},
    {"champion": 0},
    {"sticky": "colour"},
    {"sticky": "header:X-Upper"},
    {"sticky": "header:"},
    {"canary": Canary(2, 101)},
    {"canary": Canary(2, -1)},
    {"canary": Canary(2, float("nan"))},
    {"canary": Canary(2, 5, lease=0.5)},
    {"canary": Canary(2, 5, lease=float("nan"))},
    {"canary": Canary(1, 5)},
    {"canary": Canary(2, 5), "champion": None},
    {"canary": Canary(2, 5), "arms": ARMS},
    {"arms": ARMS, "champion": None},
    {"arms": (Arm("b", 5, 60), Arm("c", 6, 41))},
    {"arms": (Arm("b", 5, 10), Arm("b", 6, 10))},
    {"arms": (Arm("b", 5, 10), Arm("c", 5, 10))},
    {"arms": (Arm("b", 5, float("nan")),)},
    {"arms": (Arm("", 5, 10),)},
    {"shadows": (Shadow(1),)},
    {"shadows": (Shadow(5),), "arms": ARMS},
    {"shadows": (Shadow(3), Shadow(3, "again"))},
    {"shadows": (Shadow(3, "champion"),)},
    {"shadows": (Shadow(3, share=0),)},
    {"shadows": (Shadow(3, share=101),)},
    {"rules": (Rule("beta", (), 5),)},
    {"rules": (Rule("beta", (BETA,)),)},
    {"rules": (Rule("beta", (BETA,), 5, "b"),), "arms": ARMS},
    {"rules": (Rule("beta", (BETA,), arm="c"),), "arms": ARMS},
    {"rules": (Rule("beta", (BETA,), 5), Rule("beta", (BETA,), 6))},
    {"rules": (Rule("beta", (Condition(),), 5),)},
    {"rules": (Rule("beta", (Condition(header="a", tag="b"),), 5),)},
    {"rules": (Rule("beta", (Condition(header="a", equals="b", prefix="c"),), 5),)},
    {"rules": (Rule("beta", (Condition(caller="ada", prefix="a"),), 5),)},
    {"rules": (Rule("beta", (Condition(header="X-Beta"),), 5),)},
    {"rules": (Rule("beta", (Condition(header="authorization", prefix="Bearer"),), 5),)},
    {"rules": (Rule("beta", (Condition(tag="a=b"),), 5),)},
    {"rules": tuple(Rule(f"rule {n}", (BETA,), 5) for n in range(101))},
]


def policy(**change: Any) -> Policy:
    return Policy(**{"endpoint": "delay", "project": "flights", "number": 1, "champion": 1, **change})


@pytest.mark.parametrize("change", BAD, ids=str)
def test_policies_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        check(policy(**change))


def test_versions_are_named_once() -> None:
    made = policy(canary=Canary(2, 5), shadows=(Shadow(4), Shadow(3, "frozen")), rules=(Rule("beta", (BETA,), 6),))
    check(made)
    assert made.versions == (1, 2, 6, 4, 3)
    assert made.answering == (1, 2, 6)
    assert made.shares() == [(1, "champion", 95.0), (2, "canary", 5)]


def test_what_arms_leave_is_the_champions() -> None:
    made = policy(arms=(Arm("a", 1, 45), Arm("b", 5, 45)))
    check(made)
    assert made.shares() == [(1, "champion", 10.0), (1, "arm a", 45), (5, "arm b", 45)]
    assert made.versions == (1, 5)


def test_a_champion_before_stays_until_its_time_is_over() -> None:
    made = policy(retiring=Retiring(3, 100))
    assert made.at(99) == made
    assert made.at(100) == policy()
    assert made.versions == (1,)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
shares = st.floats(0, 100) | st.integers(0, 100)
conditions = st.one_of(
    st.builds(Condition, caller=texts),
    st.builds(lambda tag, value: Condition(tag=tag, equals=value), texts, st.none() | texts),
    st.builds(lambda header, value: Condition(header=header, prefix=value), texts, st.none() | texts),
)
documents = st.builds(
    PolicyDocument,
    champion=st.none() | st.integers(1, 99),
    sticky=texts,
    canary=st.none() | st.builds(Canary, st.integers(1, 99), shares, st.floats(1, 1e6)),
    arms=st.lists(st.builds(Arm, texts, st.integers(1, 99), shares), max_size=3).map(tuple),
    rules=st.lists(
        st.builds(Rule, texts, st.lists(conditions, max_size=3).map(tuple), st.none() | st.integers(1, 9), st.none() | texts),
        max_size=3,
    ).map(tuple),
    shadows=st.lists(st.builds(Shadow, st.integers(1, 99), texts, shares), max_size=3).map(tuple),
)  # fmt: skip


@given(documents)
def test_a_policy_that_was_written_down_is_read_back(document: PolicyDocument) -> None:
    made = document.draft("flights", "delay")
    assert policy_document.read(policy_document.toml(made).encode(), "it") == document
    assert policy_document.read(json.dumps(policy_document.plain(made)).encode(), "it") == document
    assert policy_document.difference(made, made) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"champion = ", "TOML or JSON"),
        (b'{"champion": 1', "TOML or JSON"),
        (b"\xff", "TOML or JSON"),
        (b"champoin = 1", "did you mean `champion`"),
        (b'[[arm]]\nname = "b"\nversion = 2\nweight = 40', "did you mean `arms`"),
        (b'[[rules]]\nname = "x"\nwhen = [{ heeder = "a" }]\nversion = 1', "did you mean `header`"),
        (b'champion = "three"', r"\$.champion"),
        (b"[[arms]]\nname = 'b'\nversion = 2\nweight = 'all'", r"\$.arms\[0\].weight"),
        (b"#" * 300_000, "too long"),
        (b'{"a":' * 40_000, "TOML or JSON"),
    ],
    ids=range(10),
)
def test_what_is_no_policy_is_refused_by_name(text: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        policy_document.read(text, "it")


def test_a_change_is_shown_line_by_line() -> None:
    before, after = policy(), policy(arms=ARMS)
    shown = policy_document.difference(before, after)
    assert [line for line in shown.splitlines() if line[0] == "+"] == [
        "+", "+[[arms]]", '+name = "b"', "+version = 5", "+weight = 10"
    ]  # fmt: skip
    assert "-" not in shown.replace("champion", "")


def test_policies_of_before_there_were_arms_are_still_read() -> None:
    import msgspec

    old = {"champion": 1, "canary": {"version": 2, "share": 5}, "shadows": [{"version": 3, "role": "frozen"}]}
    read = msgspec.convert({**old, "endpoint": "delay", "project": "flights", "number": 4}, Policy)
    assert read == policy(number=4, canary=Canary(2, 5), shadows=(Shadow(3, "frozen"),))
