"""The fingerprint of a step's code, taken when a run is planned: everything a function reaches, and nothing else.

Followed from the function: its own body, defaults and closure; functions and classes it names, in any project file, and
what those name in turn; decorators, partials and lambdas; the values of constants. Installed libraries count with their
version. Comments, docstrings, layout and the names of locals do not count.

    found = fingerprint(step.function, root=project.root, sources=pipeline.sources)
    found.digest                                        # "b3:…", equal on all supported Pythons
    found.parts                                         # {"pipeline.clean_flights": "b3:…", "pipeline.LIMIT": "b3:…"}

What cannot be followed in the code is listed, so that it can be declared. An object that neither its value nor the code that
made it can stand for (an open file, a lock, a generator) is an error, because a step that uses it would have no key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instar.core.errors import PipelineError
from instar.core.ids import digest_of
from instar.plan import values
from instar.plan.reach import Reach
from instar.plan.sourcecode import Sources


@dataclass(frozen=True)
class Fingerprint:
    """What a function's behaviour depends on.

    Attributes:
        digest: Of all parts.
        parts: Digest of each function, class and constant that it reaches, by dotted name.
        distributions: Version of each installed distribution that it reaches.
        unresolved: What could not be followed, and should be declared.
    """

    digest: str
    parts: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()


def fingerprint(
    function: Callable[..., Any],
    *,
    root: Path,
    sources: Sources | Mapping[str, str] | None = None,
    ignore: Iterable[str] = (),
) -> Fingerprint:
    """Follow `function` and take the digest of all it reaches.

    Args:
        function: A function of the project.
        root: The project's folder.
        sources: Text of imported files, by path, others are read from the disk; or what is known of them from an earlier
            fingerprint, which makes the next one cheap.
        ignore: Globals and closure variables that its author declares not to count.

    Raises:
        PipelineError: It reaches an object that nothing can stand for.
    """
    reach = _begin(root, sources, ignore)
    start = reach.start(function)
    return _summed(reach, start, getattr(function, "__name__", "?"))


def fingerprint_of_code(
    name: str,
    text: str,
    *,
    root: Path,
    sources: Sources | Mapping[str, str] | None = None,
    given: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> Fingerprint:
    """The same of a whole program, such as a notebook's cells: it is not run for it, and neither is what it imports by name.

    Args:
        name: What to call it among the parts.
        text: Its source, as `notebooks.program_text` writes it.
        given: Names that it finds defined when it begins.
        root, sources, ignore: As for `fingerprint`.
    """
    reach = _begin(root, sources, ignore)
    return _summed(reach, reach.program(name, text, frozenset(given)), name)


def _begin(root: Path, sources: Sources | Mapping[str, str] | None, ignore: Iterable[str]) -> Reach:
    return Reach(sources if isinstance(sources, Sources) else Sources(root, sources or {}), frozenset(ignore))


def _summed(reach: Reach, start: str, name: str) -> Fingerprint:
    for where, value in reach.opaque:
        variable = where.rpartition(".")[2]
        raise PipelineError(
            f"its key cannot be made: {where} holds {values.spoken(value)}, for which neither a value nor the code that "
            "made it can stand",
            subject=f"step {name}",
            found=f"{type(value).__module__}.{type(value).__qualname__}",
            next_step="Make it inside the function, and declare what it reads with files= or variables=; or, if it cannot "
            f'change the result, declare that with ignore=["{variable}"].',
        )
    parts = dict(sorted(reach.parts.items()))
    whole = digest_of({"start": start, "parts": parts})
    return Fingerprint(whole, parts, dict(sorted(reach.distributions.items())), tuple(sorted(reach.unresolved)))
