"""The contract: read, proven, and journalled when it takes effect."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from instar.core import journal
from instar.core.errors import ContractError, NotFound
from instar.core.limits import Limits
from instar.core.store import Store
from instar.plan import revisions
from instar.plan.project import find_root, load_project, parse_contract, revision_of
from instar.plan.revisions import record_contract

CONTRACT = """
[project]
name = "flights"
objective = "Warn passengers before departure that a flight will arrive late"
owner = "operations"

[problem.delay]
task = "binary"
target = "late"
metric = "cost"
cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }
oversight = "advice"
features = "all"
privacy = { passenger = "personal" }

[problem.delay.split]
by = "event_time"
decide = "14d"
judge = "2w"
refit = true

[problem.delay.outcome]
due = "1d"

[problem.delay.gates]
improvement = 0.01
slices = ["carrier", "origin"]
latency_p99_ms = 20

[problem.delay.rollout]
shadow = 2000
steps = [2, 5, 10, 25, 75, 100]
bake = "30m"
rollback = { cost = 0.05, errors = 0.01 }

[problem.delay.retrain]
when = ["drift", "cost", "schedule:monthly"]
approval = "automatic"
"""


def write(folder: Path, text: str = CONTRACT) -> Path:
    (folder / "instar.toml").write_text(text)
    return folder


def refused(text: str) -> ContractError:
    with pytest.raises(ContractError) as caught:
        parse_contract(text)
    return caught.value


def test_reads_every_section_with_units_and_defaults() -> None:
    problem = parse_contract(CONTRACT).problem["delay"]
    assert problem.cost.false_negative == 3.0
    assert (problem.split.decide, problem.split.judge) == (timedelta(days=14), timedelta(days=14))
    assert problem.rollout.bake == timedelta(minutes=30)
    assert problem.rollout.patience == timedelta(days=14)
    assert problem.gates.latency_p99_ms == 20.0
    assert problem.gates.no_worse == 0.02
    assert problem.monitor.window == timedelta(days=1)
    assert problem.privacy == {"passenger": "personal"}


def test_features_may_be_named() -> None:
    named = CONTRACT.replace('features = "all"', 'features = ["hour", "carrier"]')
    assert parse_contract(named).problem["delay"].features == ("hour", "carrier")


@pytest.mark.parametrize(
    ("old", "new", "path", "nearest"),
    [
        ("slices =", "slicess =", "problem.delay.gates.slicess", "slices"),
        ("owner =", "ownr =", "project.ownr", "owner"),
        ("[problem.delay.rollout]", "[problem.delay.rolout]", "problem.delay.rolout", "rollout"),
        ("false_negative =", "false_negativ =", "problem.delay.cost.false_negativ", "false_negative"),
        ("[problem.delay", "[problems.delay", "problems", "problem"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(old: str, new: str, path: str, nearest: str) -> None:
    error = refused(CONTRACT.replace(old, new))
    assert repr(path) in str(error)
    assert error.next_step == f"Did you mean {nearest!r}?"


@pytest.mark.parametrize(
    ("old", "new", "path", "asked"),
    [
        ("latency_p99_ms = 20", 'latency_p99_ms = "fast"', "problem.delay.gates.latency_p99_ms", "a number"),
        ("improvement = 0.01", "improvement = nan", "problem.delay.gates.improvement", "a number"),
        ("shadow = 2000", "shadow = 2000.5", "problem.delay.rollout.shadow", "a whole number"),
        ("shadow = 2000", "shadow = true", "problem.delay.rollout.shadow", "a whole number"),
        ("owner =", 'public_variables = ["DB_PASSWORD"]\nowner =', "project.public_variables[0]", "no secret"),
        ("refit = true", "refit = 1", "problem.delay.split.refit", "true or false"),
        ('decide = "14d"', "decide = 14", "problem.delay.split.decide", "a duration"),
        ('due = "1d"', 'due = "1 fortnight"', "problem.delay.outcome.due", "a duration"),
        ('decide = "14d"', 'decide = "0d"', "problem.delay.split.decide", "more than 0"),
        ('slices = ["carrier", "origin"]', 'slices = ["carrier", 3]', "problem.delay.gates.slices[1]", "text"),
        ('name = "flights"', "name = 7", "project.name", "text"),
        ('name = "flights"', 'name = "Our Flights"', "project.name", "a small letter"),
        ('oversight = "advice"', 'oversight = "advise"', "problem.delay.oversight", '"advice"'),
        ('"drift"', '"drfit"', "problem.delay.retrain.when[0]", "drift"),
        ("75, 100]", "75]", "problem.delay.rollout.steps", "end with 100"),
        ("[2, 5", "[5, 2", "problem.delay.rollout.steps", "grow"),
        ("false_negative = 3.0", "false_negative = -3.0", "problem.delay.cost.false_negative", "0 or more"),
        (
            'privacy = { passenger = "personal" }',
            'privacy = { passenger = "secret" }',
            "problem.delay.privacy.passenger",
            "",
        ),
        ('features = "all"', "features = 3", "problem.delay.features", '"all"'),
        (
            'features = "all"',
            'features = "all"\ninputs.hour = { max = "late" }',
            "problem.delay.inputs.hour.max",
            "a number",
        ),
        (
            'features = "all"',
            'features = "all"\ninputs.hour = { min = 2, max = 1 }',
            "problem.delay.inputs.hour",
            "min and",
        ),
        ('features = "all"', 'features = "all"\ninputs.hour = { values = [] }', "problem.delay.inputs.hour", "values"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_is_asked(old: str, new: str, path: str, asked: str) -> None:
    assert old in CONTRACT
    error = refused(CONTRACT.replace(old, new))
    assert repr(path) in error.what
    assert asked in str(error.asked)
    assert error.found is not None


def test_a_contract_without_a_problem_is_refused() -> None:
    head = CONTRACT[: CONTRACT.index("[problem.delay]")]
    assert "[problem.NAME]" in str(refused(head).asked)
    assert "[problem.NAME]" in str(refused(head + "[problem]\n").asked)


@pytest.mark.parametrize(
    ("cut", "path"),
    [
        ('target = "late"\n', "problem.delay.target"),
        ('decide = "14d"\n', "problem.delay.split.decide"),
        ('cost = { false_negative = 3.0, false_positive = 1.0, unit = "EUR" }\n', "problem.delay.cost"),
        ('[problem.delay.outcome]\ndue = "1d"\n', "problem.delay.outcome"),
    ],
)
def test_a_missing_key_or_section_is_named(cut: str, path: str) -> None:
    assert cut in CONTRACT
    error = refused(CONTRACT.replace(cut, ""))
    assert f"{path!r} is missing" in error.what


def test_broken_toml_names_the_line() -> None:
    assert "line 2" in str(refused(CONTRACT.replace("[project]", "[project")))


def test_the_revision_follows_the_meaning_not_the_layout() -> None:
    revision = revision_of(parse_contract(CONTRACT))
    assert revision_of(parse_contract(CONTRACT.replace("shadow = 2000", "shadow = 2_000  # predictions"))) == revision
    assert revision_of(parse_contract(CONTRACT.replace("shadow = 2000", "shadow = 2001"))) != revision


def test_an_input_declares_what_a_call_may_send() -> None:
    text = (
        CONTRACT
        + """
[problem.delay.inputs.distance]
min = 0
max = 10000
nullable = false
[problem.delay.inputs.carrier]
values = ["AA", "UA"]
"""
    )
    contract = parse_contract(text)
    inputs = contract.problem["delay"].inputs
    assert (inputs["distance"].limits, inputs["distance"].nullable) == (Limits(0, 10000), False)
    assert (inputs["carrier"].limits, inputs["carrier"].nullable) == (Limits(values=("AA", "UA")), None)
    assert revision_of(contract) != revision_of(parse_contract(CONTRACT))
    # One that declares nothing is the revision that it was before anybody could.
    assert (
        revision_of(parse_contract(CONTRACT)) == "b3:5bc6ae4e31c6a1cf88025b82d30cf11209c010944cd597e56b487e38df5fbd1f"
    )


def test_the_root_is_found_from_within(tmp_path: Path) -> None:
    inner = write(tmp_path) / "a" / "b"
    inner.mkdir(parents=True)
    assert find_root(inner) == tmp_path
    assert load_project(tmp_path).name == "flights"


def test_a_folder_without_a_contract_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="instar init"):
        load_project(tmp_path)
    with pytest.raises(NotFound, match="instar init"):
        find_root(tmp_path)


def test_a_contract_takes_effect_when_it_is_journalled_and_only_when_it_changed(tmp_path: Path, store: Store) -> None:
    first = load_project(write(tmp_path))
    assert record_contract(store, first) == first.revision
    assert record_contract(store, load_project(write(tmp_path, CONTRACT + "# a comment\n"))) == first.revision
    second = load_project(write(tmp_path, CONTRACT.replace("false_negative = 3.0", "false_negative = 4.0")))
    record_contract(store, second)
    record_contract(store, first)
    with store.database.read() as tx:
        entries = journal.entries(tx, "flights", kind="contract revision")
        current = revisions.current(tx, "flights")
        assert journal.verify(tx, "flights").consistent
    assert [entry.subject for entry in entries] == [first.revision, second.revision, first.revision]
    assert entries[0].body["objective"].startswith("Warn passengers")
    assert entries[1].body["problems"]["delay"]["cost"]["false_negative"] == 4.0
    assert entries[1].body["before"] == first.revision
    assert current is not None
    assert (current.number, current.revision) == (3, first.revision)


def test_the_time_of_a_call_is_part_of_what_is_agreed() -> None:
    served = CONTRACT + "\n[problem.delay.serving]\nmost = 2\n"
    timed = parse_contract(served + 'timeout = "5s"\n')
    serving = timed.problem["delay"].serving
    assert serving is not None
    assert serving.timeout == timedelta(seconds=5)
    assert revision_of(timed) != revision_of(parse_contract(served))
    with pytest.raises(ContractError, match="timeout"):
        parse_contract(served + 'timeout = "0s"\n')
