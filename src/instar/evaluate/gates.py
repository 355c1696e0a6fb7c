"""Gates: the rules that a version must meet before it may be approved, judged on evidence gathered beforehand.

`judge` is pure: the same evidence and the same rules give the same verdict, in the demo, in an audit and in a test. It
measures nothing and knows no model; `evidence.py` gathers.

Rules of a verdict:

* A bound decides, never the point estimate. An interval that straddles the limit is *undecided*; too few rows are
  *undecided*; neither is ever passed.
* A new recipe must be cheaper than the champion by `improvement`; a refit of the champion's own recipe must be no worse
  than `no_worse`, since it brings newer data and no new idea.
* Without a champion there is nothing to protect: the first version passes unless it is shown to be worse than deciding
  the same for everybody, and the check says so.
* A slice fails when it is shown to be worse; a slice that cannot be decided is listed and does not block.
* Any check failed: failed. Else any blocking check undecided: undecided. Else passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from instar.evaluate.compare import LEVEL, Interval, PairedSums

if TYPE_CHECKING:
    from instar.plan.project import Gates

State = Literal["passed", "failed", "undecided"]
Relation = Literal["first", "recipe", "refit"]

REASONS = 3  # gates that a verdict's one line names; the report has all of them


@dataclass(frozen=True)
class SliceEvidence:
    """Costs of both versions on one slice of the judged rows."""

    column: str
    value: str
    costs: PairedSums

    @property
    def name(self) -> str:
        return f"{self.column}={self.value}"


@dataclass(frozen=True)
class Latency:
    """What a load probe measured, in milliseconds for one call of one row; `how` says where it was measured."""

    p50_ms: float
    p99_ms: float
    calls: int
    how: str


@dataclass(frozen=True)
class ParityEvidence:
    """Largest difference between the scores of the portable and the native form on the same rows.

    `error` says why they could not be compared, if so.
    """

    rows: int
    max_difference: float
    tolerance: float
    passed: bool
    error: str = ""


@dataclass(frozen=True)
class BundleFacts:
    """What is true of a bundle whatever it costs.

    Attributes:
        contract_problems: Where its signature does not cover the endpoint's; None when not looked at.
        latency: Of the form that will serve; None when no probe ran.
        parity: None when the bundle has one form only.
    """

    contract_problems: tuple[str, ...] | None = None
    latency: Latency | None = None
    parity: ParityEvidence | None = None


@dataclass(frozen=True)
class Evidence:
    """All that the gates of a problem look at.

    Attributes:
        relation: How the candidate stands to the champion: there is none (`first`), a new `recipe`, or a `refit`.
        opponent: Whose costs are the `b` of every pair, in words for people.
        costs: Candidate (`a`) and opponent (`b`), on the same judged rows.
        unit: Unit of cost, e.g. `"EUR"`.
        min_rows: Rows below which nothing is decided.
        decide_rows: Rows on which the candidate's threshold was chosen; None when that is not known.
        slices: The same by slice.
        facts: What is true of the candidate's bundle whatever it costs.
    """

    relation: Relation
    opponent: str
    costs: PairedSums
    unit: str
    min_rows: int
    slices: tuple[SliceEvidence, ...] = ()
    facts: BundleFacts = BundleFacts()
    decide_rows: int | None = None


@dataclass(frozen=True)
class GateCheck:
    """One rule and what became of it.

    Attributes:
        name: `"cost"`, `"slice carrier=OO"`, `"latency"`, `"contract"` or `"parity"`.
        found, asked: The value found and the value asked for, in words.
        why: One sentence for people.
        blocking: An undecided check of this kind holds the verdict back.
    """

    name: str
    state: State
    found: str
    asked: str
    why: str
    blocking: bool = True


@dataclass(frozen=True)
class Verdict:
    """What the gates say about one version."""

    state: State
    checks: tuple[GateCheck, ...]

    @property
    def failed(self) -> tuple[GateCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.state == "failed")

    @property
    def undecided(self) -> tuple[GateCheck, ...]:
        """The checks that could not be decided, blocking or not."""
        return tuple(check for check in self.checks if check.state == "undecided")

    @property
    def reason(self) -> str:
        """One line: what stood in the way first, or that nothing did."""
        if self.state == "passed":
            return "all gates passed"
        blamed = self.failed or tuple(check for check in self.undecided if check.blocking)
        said = [f"{check.name}: {check.why}" for check in blamed[:REASONS]]
        more = len(blamed) - len(said)
        return "; ".join(said) + (f"; and {more} more" if more else "")


def judge(gates: Gates, evidence: Evidence) -> Verdict:
    """The verdict of a problem's gates on the evidence about one version."""
    return conclude((_cost(gates, evidence), *_slices(gates, evidence), *check_bundle(gates, evidence.facts)))


def check_bundle(gates: Gates, facts: BundleFacts) -> tuple[GateCheck, ...]:
    """The checks on a bundle which need no judged rows: latency, contract and parity."""
    return _latency(gates, facts.latency), _contract(facts.contract_problems), _parity(facts.parity)


def conclude(checks: tuple[GateCheck, ...]) -> Verdict:
    """The verdict that follows from checks."""
    if any(check.state == "failed" for check in checks):
        return Verdict("failed", checks)
    if any(check.state == "undecided" and check.blocking for check in checks):
        return Verdict("undecided", checks)
    return Verdict("passed", checks)


def waive(verdict: Verdict, waived: frozenset[str]) -> Verdict:
    """The verdict when the named checks no longer hold it back; they stay listed as they are, marked as waived."""
    kept = tuple(check for check in verdict.checks if check.name not in waived)
    marked = tuple(
        replace(check, why=f"waived; {check.why}", blocking=False) if check.name in waived else check
        for check in verdict.checks
    )
    return Verdict(conclude(kept).state, marked)


def _cost(gates: Gates, evidence: Evidence) -> GateCheck:
    costs, unit = evidence.costs, evidence.unit
    factor, rule = _asked_of(gates, evidence)
    margin = costs.margin(factor)
    asked = f"{rule} {evidence.opponent}"
    found = f"{costs.mean_a:.4f} against {costs.mean_b:.4f} {unit} a row on {costs.n} rows"
    if costs.n < evidence.min_rows:
        why = f"{costs.n} judged rows are too few, {evidence.min_rows} are asked for"
        return GateCheck("cost", "undecided", found, asked, why)
    if evidence.decide_rows is not None and evidence.decide_rows < evidence.min_rows:
        why = f"its threshold was chosen on {evidence.decide_rows} rows, {evidence.min_rows} are asked for"
        return GateCheck("cost", "undecided", found, asked, why)
    if evidence.relation == "first" and not margin.low > 0:
        why = f"first version, no champion; not shown to be worse than {evidence.opponent} ({_bounds(margin)})"
        return GateCheck("cost", "passed", found, asked, why)
    state = _side(margin)
    why = {
        "passed": f"the whole interval is within the limit ({_bounds(margin)})",
        "failed": f"the whole interval is beyond the limit ({_bounds(margin)})",
        "undecided": f"the interval straddles the limit ({_bounds(margin)})",
    }[state]
    return GateCheck("cost", state, found, asked, why)


def _asked_of(gates: Gates, evidence: Evidence) -> tuple[float, str]:
    # The factor f of "candidate - f * opponent <= 0".
    if evidence.relation == "recipe":
        return 1 - gates.improvement, f"at least {gates.improvement:.1%} cheaper than"
    return 1 + gates.no_worse, f"no more than {gates.no_worse:.1%} dearer than"


def _slices(gates: Gates, evidence: Evidence) -> list[GateCheck]:
    if evidence.relation == "first":
        return []  # nobody is served by a champion whom the slice could be worse off with
    factor = 1 + gates.slice_no_worse
    judged = [part for part in evidence.slices if part.costs.n >= evidence.min_rows]
    # Bonferroni: among twenty slices one looks bad by chance at 95 %, and would stop every good candidate.
    level = 1 - (1 - LEVEL) / max(len(judged), 1)
    return [_slice(part, factor, level, gates.slice_no_worse, evidence) for part in evidence.slices]


def _slice(part: SliceEvidence, factor: float, level: float, no_worse: float, evidence: Evidence) -> GateCheck:
    costs, name = part.costs, f"slice {part.name}"
    asked = f"no more than {no_worse:.1%} dearer than {evidence.opponent}"
    found = f"{costs.mean_a:.4f} against {costs.mean_b:.4f} {evidence.unit} a row on {costs.n} rows"
    if costs.n < evidence.min_rows:
        why = f"{costs.n} rows are too few, {evidence.min_rows} are asked for"
        return GateCheck(name, "undecided", found, asked, why, blocking=False)
    margin = costs.margin(factor, level)
    state = _side(margin)
    why = {
        "passed": f"not worse on this slice ({_bounds(margin)})",
        "failed": f"worse on {part.name}, beyond chance ({_bounds(margin)})",
        "undecided": f"neither shown to be worse nor shown not to be ({_bounds(margin)})",
    }[state]
    return GateCheck(name, state, found, asked, why, blocking=False)


def _latency(gates: Gates, latency: Latency | None) -> GateCheck:
    asked = f"p99 of at most {gates.latency_p99_ms:g} ms"
    if latency is None:
        return GateCheck("latency", "undecided", "not measured", asked, "no load probe ran")
    found = f"p99 {latency.p99_ms:.3f} ms, p50 {latency.p50_ms:.3f} ms over {latency.calls} calls ({latency.how})"
    if latency.calls < 100:
        return GateCheck("latency", "undecided", found, asked, "a p99 needs 100 calls or more")
    ok = latency.p99_ms <= gates.latency_p99_ms
    return GateCheck("latency", "passed" if ok else "failed", found, asked, "within" if ok else "too slow")


def _contract(problems: tuple[str, ...] | None) -> GateCheck:
    asked = "a signature that covers the endpoint's"
    if problems is None:
        return GateCheck("contract", "undecided", "not looked at", asked, "no signature was compared")
    if problems:
        return GateCheck("contract", "failed", "; ".join(problems), asked, problems[0])
    return GateCheck("contract", "passed", "it does", asked, "every call that the endpoint accepts can be answered")


def _parity(parity: ParityEvidence | None) -> GateCheck:
    if parity is None:
        return GateCheck(
            "parity", "passed", "one form", "equal scores of all forms", "there is no second form to differ"
        )
    asked = f"scores within {parity.tolerance:g}"
    found = f"largest difference {parity.max_difference:.3g} on {parity.rows} rows"
    if parity.rows == 0:
        return GateCheck("parity", "undecided", found, asked, "no row was compared")
    if parity.error:
        return GateCheck("parity", "failed", parity.error, asked, "the two forms could not be compared")
    ok = parity.passed and parity.max_difference <= parity.tolerance
    why = "the portable form answers as the native one" if ok else "the portable form answers differently"
    return GateCheck("parity", "passed" if ok else "failed", found, asked, why)


def _side(margin: Interval) -> State:
    if math.isnan(margin.mean):
        return "undecided"
    if margin.high <= 0:
        return "passed"
    return "failed" if margin.low > 0 else "undecided"


def _bounds(margin: Interval) -> str:
    return f"{margin.low:+.4f} to {margin.high:+.4f} from the limit, {margin.level:.1%} interval, {margin.n} rows"
