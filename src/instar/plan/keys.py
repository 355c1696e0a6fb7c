"""Step keys: the digest of all that a step's output depends on, by which the runner knows a result that it has already.

Made of the code's fingerprint, the interpreter, the distributions that the code reaches, the content of the inputs,
parameters, declared files and variables, the checks of the table, and what the contract says to a model's training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from instar.core.errors import BadInput, PipelineError
from instar.core.ids import digest, digest_of
from instar.plan import notebook_step, notebooks, suspects, values
from instar.plan.fingerprint import Fingerprint, fingerprint, fingerprint_of_code
from instar.plan.parameters import fitted
from instar.plan.pipeline import MODEL_KINDS, CheckStep, Pipeline, Step, did_you_mean
from instar.plan.project import Project
from instar.plan.sourcecode import Sources

# What the contract says that training depends on; gates, rollout and monitors change no fit.
_TRAINING_TERMS = ("task", "target", "features", "cost", "split", "privacy", "nullable")
_LATER_TERMS = ("inputs",)  # part of a key only where something is said, so that older keys stay


@dataclass(frozen=True)
class Ingredients:
    """What a key is made of; kept with each execution, so that `why` can name what changed.

    Attributes:
        source: Digest of the code's fingerprint.
        parts: Digest of each function, class and constant that the code reaches; they make up `source`.
        checks: Digest of the code of each check on the table.
        python: Version of the language, e.g. `"3.11"`.
        distributions: Versions of distributions that the code reaches.
        inputs: Content digest of each input.
        partitions: Content of each partition, of a step that runs by partitions; no part of the key, which has the whole.
        parameters: Values of the function's parameters.
        options: The decorator's options, and for a model the terms of its problem.
        files: Content digest of each declared file.
        variables: Digest of each declared environment variable.
        unresolved: What could not be followed; a warning, and no part of the key.
    """

    source: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    distributions: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    partitions: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()

    def key(self) -> str:
        """The step key."""
        plain = self.plain()
        return digest_of({name: plain[name] for name in plain if name not in ("parts", "partitions", "unresolved")})

    def plain(self) -> dict[str, Any]:
        """As JSON values, to be kept."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


class Keys:
    """Makes the ingredients of one project's steps; fingerprints are taken once."""

    def __init__(self, project: Project, pipeline: Pipeline, parameters: Mapping[str, object] | None = None) -> None:
        self._project = project
        self._pipeline = pipeline
        self._given = given_parameters(pipeline, parameters or {})
        self._fingerprints: dict[str, Fingerprint] = {}
        self._checks: dict[str, dict[str, Fingerprint]] = {}
        self._sources = Sources(project.root, pipeline.sources)

    def parameters(self, step: Step) -> dict[str, object]:
        """What the function is called with besides tables."""
        return {**step.parameters, **self._given.get(step.name, {})}

    def files(self, step: Step) -> list[Path]:
        """Files that the step declares to read, sorted.

        Raises:
            PipelineError: A declared pattern fits no file.
        """
        patterns = step.options.get("files", ()) or ((step.options["path"],) if step.options.get("path") else ())
        found: set[Path] = set()
        for pattern in patterns:
            fitting = [file for file in self._project.root.glob(pattern) if file.is_file()]
            if not fitting:
                raise PipelineError(
                    "a declared file does not exist",
                    subject=f"step {step.name}",
                    found="no such file",
                    asked=str(self._project.root / pattern),
                    next_step="Put the file there, or correct the declaration.",
                )
            found.update(fitting)
        return sorted(found)

    def ingredients(self, step: Step, inputs: Mapping[str, str]) -> Ingredients:
        """All that the output of `step` depends on, given the content digests of its inputs."""
        code = self._fingerprint(step)
        checks = self._fingerprints_of_checks(step)
        distributions = dict(code.distributions)
        for check in checks.values():
            distributions.update(check.distributions)
        root = self._project.root
        return Ingredients(
            source=code.digest,
            parts=code.parts,
            checks={name: check.digest for name, check in checks.items()},
            distributions=dict(sorted(distributions.items())),
            inputs=dict(inputs),
            parameters={name: _plain(value) for name, value in self.parameters(step).items()},
            options=self._options(step),
            files={file.relative_to(root).as_posix(): digest_of_file(file) for file in self.files(step)},
            variables={name: digest(os.environ.get(name, "").encode()) for name in step.options.get("variables", ())},
            unresolved=_undeclared(step, code),
        )

    def _fingerprint(self, step: Step) -> Fingerprint:
        if step.name not in self._fingerprints:
            none = Fingerprint(digest_of(None))
            found = none if step.function is None else self._take(step)
            self._fingerprints[step.name] = self._take_notebook(step) if step.kind == notebook_step.KIND else found
        return self._fingerprints[step.name]

    def _fingerprints_of_checks(self, step: Step) -> dict[str, Fingerprint]:
        if step.name not in self._checks:
            checks = self._pipeline.checks.get(step.name, ())
            self._checks[step.name] = {check.name: self._take(check) for check in checks}
        return self._checks[step.name]

    def _take(self, step: Step | CheckStep) -> Fingerprint:
        assert step.function is not None
        ignore = step.options.get("ignore", ()) if isinstance(step, Step) else ()
        return fingerprint(step.function, root=self._project.root, sources=self._sources, ignore=ignore)

    def _take_notebook(self, step: Step) -> Fingerprint:
        path = str(step.options["notebook"])
        cells = notebooks.cells_of(self._sources.text(str(notebook_step.file_of(step, self._project.root))), path)
        return fingerprint_of_code(
            step.name,
            notebooks.program_text(cells),
            root=self._project.root,
            sources=self._sources,
            given=(*(item.name for item in step.inputs), *notebooks.BY_IPYTHON),
            ignore=step.options["ignore"],
        )

    def _options(self, step: Step) -> dict[str, str]:
        # What only `instar tune` reads changes no output of the pipeline; what its author lets be is no part of the key.
        silent = ("ranges", "ignore")
        spoken = {name: value for name, value in step.options.items() if name not in silent and value not in (None, ())}
        found = {name: _spoken(value) for name, value in spoken.items()}
        if step.kind in MODEL_KINDS and step.problem in self._project.contract.problem:
            problem = msgspec.to_builtins(self._project.contract.problem[step.problem])
            found |= {f"contract {term}": digest_of(problem[term]) for term in _TRAINING_TERMS}
            found |= {f"contract {term}": digest_of(problem[term]) for term in _LATER_TERMS if problem[term]}
        return found


def given_parameters(pipeline: Pipeline, given: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Parameters as given by `step.parameter`, by step; texts are read as the type of the default.

    Raises:
        BadInput: No such step or parameter, or the value does not fit.
    """
    found: dict[str, dict[str, object]] = {}
    for path, value in given.items():
        name, _, parameter = path.rpartition(".")
        known = [f"{step.name}.{one}" for step in pipeline.steps.values() for one in step.parameters]
        if path not in known:
            raise BadInput(
                "no step has that parameter",
                subject=f"parameter {path}",
                asked=", ".join(known) or "STEP.PARAMETER",
                next_step=did_you_mean(path, known) or "Give the parameter a default in the function's signature.",
            )
        found.setdefault(name, {})[parameter] = fitted(path, value, pipeline.steps[name].parameters[parameter])
    return found


def digest_of_file(file: Path) -> str:
    """Content digest of a file, read in pieces."""
    return "b3:" + blake3().update_mmap(file).hexdigest()


def _plain(value: object) -> Any:
    """A parameter as JSON: as it is where it can be, else its canonical text."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and value == value):
        return value if value not in (float("inf"), float("-inf")) else repr(value)
    return _spoken(value)


def _spoken(value: object) -> str:
    try:
        return values.canonical(value, lambda inner: None)
    except values.Opaque:
        return repr(value) if "0x" not in repr(value) else type(value).__qualname__


def _undeclared(step: Step, code: Fingerprint) -> tuple[str, ...]:
    """What was not followed, less what the decorator declares."""
    found = list(code.unresolved)
    if step.options.get("files"):
        found = [one for one in found if suspects.FILES not in one]
    if step.options.get("variables"):
        found = [one for one in found if suspects.VARIABLES not in one]
    for name in step.options.get("ignore", ()):
        found = [one for one in found if not f"{one}.".replace(",", ".").rpartition(" with ")[2].startswith(f"{name}.")]
    return tuple(found)
