"""Is a run that was made again the same? The verdict, and, when it is not, what differs, the first cause first.

    identical   the model has the same digests, and all its scores and metrics are the same, bit for bit
    equal       metrics and predictions are the same within the tolerance
    different   they are not

Pure: it compares what was recorded with what came out. Times that things took are no result and are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from instar.train import environment, threads
from instar.train.conditions import Conditions
from instar.train.environment import Environment

IDENTICAL, EQUAL, DIFFERENT = "identical", "equal", "different"

# Sums in double precision over other threads or other vector lengths move the last of sixteen digits, and a fit of a
# thousand steps some thousand times as much; a changed row or library moves far more.
TOLERANCE = 1e-6

_TIMES = ("_seconds", "seconds")
_SYSTEM = "system/"


@dataclass(frozen=True)
class Results:
    """What a run came to.

    Attributes:
        metrics: Latest value by name.
        digests: By what they are of: `"portable form"`, `"native form"`, `"scores"`, artifacts by their path.
    """

    metrics: Mapping[str, float]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        metrics: Recorded and repeated value of each metric beyond the tolerance.
        digests: Recorded and repeated digest of each part whose bytes differ.
        predictions: Largest difference of predictions; None when there was no model to ask.
    """

    verdict: str
    tolerance: float
    metrics: dict[str, tuple[float | None, float | None]]
    digests: dict[str, tuple[str, str]]
    predictions: float | None = None


@dataclass(frozen=True)
class Cause:
    """Something that is not as it was.

    Attributes:
        kind: `"input"`, `"parameter"`, `"rows"`, `"code"`, `"file"`, `"variable"`, `"distribution"`, `"python"`, `"instar"`,
            `"system"`, `"hardware"`, `"threads"`, `"seed"`, `"chance"`, `"error"` or `"unknown"`.
        name: Which one.
        recorded, found: As it was, and as it is.
        text: A line for people.
    """

    kind: str
    name: str
    recorded: Any
    found: Any
    text: str

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """Under what a run was made, as far as it can explain its results.

    Attributes:
        code: Content digest of the project's code.
        first: Distributions that the step's code reaches itself: they are named before others.
    """

    conditions: Conditions
    environment: Environment
    code: str = ""
    first: Sequence[str] = ()


def compare(
    recorded: Results, again: Results, *, predictions: float | None, tolerance: float = TOLERANCE
) -> Comparison:
    """The verdict on a repetition.

    Args:
        predictions: Largest difference of predictions between both models; None when there is none to ask.
        tolerance: Of predictions absolute, of metrics relative to the larger one, or absolute below 1.
    """
    metrics: dict[str, tuple[float | None, float | None]] = {}
    exact = True
    for name in sorted({*recorded.metrics, *again.metrics}):
        if is_time(name):
            continue
        pair = (recorded.metrics.get(name), again.metrics.get(name))
        exact = exact and _same(*pair)
        if not close(*pair, tolerance):
            metrics[name] = pair
    digests = {
        name: (digest, again.digests.get(name, ""))
        for name, digest in recorded.digests.items()
        if again.digests.get(name) != digest
    }
    near = predictions is None or predictions <= tolerance
    if exact and not _moved(recorded.digests, digests) and (predictions or 0.0) == 0.0:
        return Comparison(IDENTICAL, tolerance, metrics, digests, predictions)
    known = predictions is not None or bool(recorded.metrics)
    verdict = EQUAL if not metrics and near and known else DIFFERENT
    return Comparison(verdict, tolerance, metrics, digests, predictions)


def is_time(name: str) -> bool:
    """Is a metric of that name a time or a load of the machine, which no run repeats?"""
    return name.endswith(_TIMES) or name.startswith(_SYSTEM)


def close(left: float | None, right: float | None, tolerance: float) -> bool:
    """Are two values of a metric the same within the tolerance?"""
    if left is None or right is None:
        return left is right
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)


def differences(recorded: Facts, found: Facts) -> Iterator[Cause]:
    """All that is not as it was, the first cause first: data, code, libraries, Python, machine, threads, chance."""
    was, now = recorded.conditions, found.conditions
    if was.rows and was.rows != now.rows:
        yield Cause("rows", "rows fitted on", was.rows, now.rows, "the rows that the function was given are others")
    if recorded.code and found.code and recorded.code != found.code:
        yield Cause("code", "project", recorded.code, found.code, "the project's code is another")
    for name, digest in was.files.items():
        if now.files.get(name) != digest:
            yield Cause("file", name, digest, now.files.get(name), f"the declared file {name} is another, or gone")
    for name, digest in was.variables.items():
        if now.variables.get(name) != digest:
            yield Cause("variable", name, digest, now.variables.get(name), f"the variable {name} has another value")
    yield from _of_environment(recorded, found)
    if was.instar and was.instar != now.instar:
        yield Cause("instar", "instar", was.instar, now.instar, "Instar itself is another")
    yield from _of_machine(was, now)
    if was.seeds.hash_seed != now.seeds.hash_seed:
        pair = (was.seeds.hash_seed, now.seeds.hash_seed)
        yield Cause("seed", "PYTHONHASHSEED", *pair, f"PYTHONHASHSEED was {pair[0]} and is {pair[1]}")


def of_parameters(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Cause]:
    """Parameters that are not as they were, as they were logged."""
    for name in sorted({*recorded, *found}):
        was, now = recorded.get(name), found.get(name)
        if was != now:
            text = f"the parameter {name} was {_shown(was)} and is {_shown(now)}"
            yield Cause("parameter", name, was, now, text)


def chance(recorded: Conditions, spread: str) -> Cause:
    """The cause that two repetitions under the same conditions have proven.

    Args:
        spread: How far they are apart.
    """
    advice = "it draws from what no seed sets: a generator of its own, the operating system, or the order of a set"
    if recorded.seeds.seed is None:
        advice = "nobody set a seed: set those of random, NumPy and PyTorch in the script"
    return Cause(
        "chance", "two repetitions", None, spread, f"two repetitions differ from each other ({spread}); {advice}"
    )


def unknown() -> Cause:
    """What is left when nothing recorded differs, and two repetitions agree."""
    text = "nothing that was recorded differs, and two repetitions agree: it depends on something that was not recorded"
    return Cause("unknown", "", None, None, text)


def _of_environment(recorded: Facts, found: Facts) -> Iterator[Cause]:
    pairs = environment.differences(recorded.environment, found.environment)
    own = [name for name in ("python", "implementation", "system", "machine") if name in pairs]
    first = [name for name in pairs if name in recorded.first]
    rest = [name for name in pairs if name not in own and name not in first and name != "instar"]
    for name in first:
        yield _distribution(name, pairs[name])
    for name in own:
        was, now = pairs[name]
        yield Cause("python" if name == "python" else "system", name, was, now, f"{name} was {was} and is {now}")
    for name in rest:
        yield _distribution(name, pairs[name])


def _distribution(name: str, pair: tuple[Any, Any]) -> Cause:
    was, now = pair
    text = f"{name} was {was} and is {now}" if was and now else f"{name} {was} is not there"
    return Cause("distribution", name, was, now, text if was else f"{name} {now} was not there")


def _of_machine(was: Conditions, now: Conditions) -> Iterator[Cause]:
    for name in ("processor", "instructions", "gpus", "driver"):
        pair = (getattr(was.hardware, name), getattr(now.hardware, name))
        if pair[0] != pair[1]:
            yield Cause("hardware", name, *pair, f"the machine's {name} was {_shown(pair[0])} and is {_shown(pair[1])}")
    for name, pair in threads.differences(was.threads, now.threads).items():
        yield Cause("threads", name, *pair, f"{name} was {_shown(pair[0])} and is {_shown(pair[1])}")


def _moved(recorded: Mapping[str, str], differing: Mapping[str, Any]) -> bool:
    """Does a digest that counts differ? Where there is a portable form it is what the model does; a pickle may vary."""
    counting = set(differing)
    if "portable form" in recorded and "portable form" not in differing:
        counting.discard("native form")
    return bool(counting) or not recorded


def _same(left: float | None, right: float | None) -> bool:
    return left == right or (left is not None and right is not None and math.isnan(left) and math.isnan(right))


def _shown(value: Any) -> str:
    if value is None or value in ((), ""):
        return "not set"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
