"""The report of an evaluation: one JSON document for machines, and the same as one small self-contained HTML page.

The page loads nothing from elsewhere and follows the reader's light or dark setting, so it can be mailed, kept and opened
in ten years.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

from instar.evaluate.compare import Interval
from instar.evaluate.gates import Verdict
from instar.evaluate.metrics import calibration, summary

if TYPE_CHECKING:
    import jinja2

    from instar.evaluate.evidence import Judged
    from instar.evaluate.gates import Evidence, ParityEvidence
    from instar.plan.project import Problem
    from instar.train.bundle import Manifest

FORMAT = 1


def content(
    problem: Problem,
    candidate: Manifest,
    champion: Manifest | None,
    judged: Judged,
    evidence: Evidence,
    verdict: Verdict,
) -> dict[str, Any]:
    """What the report says, as plain JSON values; numbers that do not exist are null."""
    metrics = {"candidate": _metrics(problem, judged.y_true, judged.scores, candidate.threshold)}
    curves = {"candidate": calibration(judged.y_true, judged.scores)}
    if champion is not None and judged.opponent_scores is not None:
        metrics["champion"] = _metrics(problem, judged.y_true, judged.opponent_scores, champion.threshold)
        curves["champion"] = calibration(judged.y_true, judged.opponent_scores)
    return {
        "candidate": described(candidate),
        "opponent": evidence.opponent,
        "relation": evidence.relation,
        "unit": evidence.unit,
        "rows": judged.rows.height,
        "left_out": judged.left_out,
        "metrics": metrics,
        "difference": interval(evidence.costs.margin()),
        "slices": [
            {
                "slice": part.name,
                "rows": part.costs.n,
                "candidate": number(part.costs.mean_a),
                "opponent": number(part.costs.mean_b),
                "difference": interval(part.costs.margin()),
            }
            for part in evidence.slices
        ],
        "latency": asdict(evidence.facts.latency) if evidence.facts.latency else None,
        "parity": _parity(evidence.facts.parity),
        "calibration": curves,
        **verdict_content(verdict),
    }


def verdict_content(verdict: Verdict) -> dict[str, Any]:
    """The verdict and its checks as plain JSON values."""
    return {"verdict": verdict.state, "reason": verdict.reason, "checks": [asdict(check) for check in verdict.checks]}


def described(manifest: Manifest) -> dict[str, Any]:
    """The facts of a bundle that a reader of its report wants first."""
    return {
        "model": manifest.model,
        "step": manifest.step,
        "kind": manifest.kind,
        "recipe": manifest.recipe,
        "run": manifest.run,
        "threshold": manifest.threshold,
        "fitted_on": manifest.fitted_on,
        "fitted_rows": manifest.fitted_rows,
        "fitted_from": manifest.fitted_from,
        "fitted_until": manifest.fitted_until,
        "form": manifest.portable.form if manifest.portable else "native",
    }


def to_html(document: dict[str, Any]) -> str:
    """The page of a report."""
    return _template().render(report=document, curves=_curves(document["calibration"]))


def interval(found: Interval) -> dict[str, Any]:
    """An interval as JSON: bounds that are infinite or do not exist are null."""
    return {
        "value": number(found.mean),
        "low": number(found.low),
        "high": number(found.high),
        "n": found.n,
        "level": found.level,
    }


def number(value: float) -> float | None:
    """A number as JSON has it: null where it is not finite."""
    return value if math.isfinite(value) else None


def _metrics(problem: Problem, y_true: Any, scores: Any, threshold: float) -> dict[str, dict[str, Any]]:
    found = summary(problem.cost, y_true, scores, threshold)
    return {name: interval(value) for name, value in found.items()}


def _parity(found: ParityEvidence | None) -> dict[str, Any] | None:
    return {**asdict(found), "max_difference": number(found.max_difference)} if found else None


def _curves(curves: dict[str, list[Any]]) -> dict[str, str]:
    # Points of an SVG polyline in a square of 200 units, the origin at the lower left.
    return {
        name: " ".join(f"{200 * score:.1f},{200 - 200 * share:.1f}" for score, share, _ in points)
        for name, points in curves.items()
    }


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["number"] = _shown
    return environment.from_string(resources.files("instar.evaluate").joinpath("report.html").read_text("utf-8"))


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
