"""What the record knows of many steps at once, asked when a walk or a survey begins: few questions, not some for each step.

`Known` holds the contents that are current, and from them the key of each step as if nothing before it ran; all results
with those keys are then one question. A step whose inputs did change meanwhile is asked for by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from instar.core.errors import InstarError, NotFound
from instar.core.store import Store
from instar.plan import executions, fanout
from instar.plan.executions import DONE, Execution, Result
from instar.plan.keys import Ingredients, Keys
from instar.plan.kinds import ReadsMany, StepKind
from instar.plan.pipeline import Pipeline, Step
from instar.plan.project import Project


class Known:
    """Present contents and past results of the steps of one walk.

    Args:
        order: Steps that are walked.
        taken: Their inputs that are not.
    """

    def __init__(
        self,
        store: Store,
        project: Project,
        pipeline: Pipeline,
        kinds: Mapping[str, StepKind],
        keys: Keys,
        order: Sequence[str],
        taken: Sequence[str] = (),
    ) -> None:
        self._store, self._project, self._pipeline, self._kinds, self._keys = store, project, pipeline, kinds, keys
        self.current = current(project, pipeline, kinds, [*taken, *order])
        self._ingredients: dict[str, tuple[dict[str, str], Ingredients]] = {}
        self._key: dict[str, str] = {}
        self._results: dict[str, list[Result]] = {}
        self._order = order
        self._good: dict[str, Execution] = {}
        self._asked: set[str] = set()
        self._look_ahead(order)

    def inputs(self, step: Step) -> dict[str, str]:
        """Content digests of a step's inputs.

        Raises:
            NotFound: One has no output.
        """
        found = {}
        for item in step.inputs:
            digest = self.current.get(item.name)
            if digest is None:
                raise NotFound(
                    "it has no output",
                    subject=f"step {item.name}",
                    next_step=f"Run it: instar run --target {item.name}",
                )
            found[item.name] = digest
        return found

    def refresh(self, step: Step) -> None:
        """Look at the inputs of a step again: one of them changed under our hands."""
        names = [item.name for item in step.inputs]
        self.current.update(current(self._project, self._pipeline, self._kinds, names))

    def ingredients(self, step: Step, *, anew: bool = False) -> Ingredients:
        """What the step's key is made of now.

        Args:
            anew: Steps have run since it was looked ahead: declared files and variables may have changed.
        """
        inputs = self.inputs(step)
        ahead = self._ingredients.get(step.name)
        outside = anew and (step.options.get("files") or step.options.get("variables") or step.options.get("path"))
        if ahead is not None and ahead[0] == inputs and not outside:
            return ahead[1]
        found = self._keys.ingredients(step, inputs)
        if step.by:
            contents = fanout.partitions(self._project, self._pipeline, self._kinds, step)
            found = replace(found, partitions=fanout.named(contents))
        self._ingredients[step.name] = (inputs, found)
        self._key.pop(step.name, None)
        return found

    def key(self, step: Step, ingredients: Ingredients) -> str:
        """The step's key, made once for the same ingredients."""
        ahead = self._ingredients.get(step.name)
        if ahead is None or ahead[1] is not ingredients:
            return ingredients.key()
        if step.name not in self._key:
            self._key[step.name] = ingredients.key()
        return self._key[step.name]

    def results(self, step: Step, key: str) -> list[Result]:
        """Results of the step with that key, the newest first."""
        if key not in self._results:
            found: dict[str, list[Result]] = {}
            if self.good(step.name) is not None:  # else it has no result at all
                with self._store.database.read() as tx:
                    found = executions.results(tx, self._project.name, [key])
            self._results[key] = found.get(key, [])
        return [one for one in self._results[key] if one.step == step.name]

    def is_current(self, name: str) -> bool:
        """Is the present output the known result of the step, if nothing before it runs?"""
        key = self._key.get(name)
        digest = self.current.get(name)
        return key is not None and any(one.digest == digest for one in self._results.get(key, []) if one.step == name)

    def ahead(self, name: str) -> Ingredients | None:
        """What a step's key would be made of, if nothing before it runs; None when an input has no output yet."""
        found = self._ingredients.get(name)
        return None if found is None else found[1]

    def newest(self, steps: Iterable[str], state: str | None = None) -> dict[str, Execution]:
        """The newest execution of each step, optionally in one state."""
        with self._store.database.read() as tx:
            return executions.newest(tx, self._project.name, list(steps), state)

    def good(self, step: str) -> Execution | None:
        """The newest execution of a step that ended well before this walk; asked once for all steps that may need it."""
        if not self._asked:
            self._asked = {name for name in self._order if not self.is_current(name)}
            self._good = self.newest(self._asked, DONE)
        if step not in self._asked:  # it was current, and then an input of it changed
            self._asked.add(step)
            self._good |= self.newest([step], DONE)
        return self._good.get(step)

    def _look_ahead(self, order: Sequence[str]) -> None:
        for name in order:
            step = self._pipeline.steps[name]
            if not runs(step) or any(self.current.get(item.name) is None for item in step.inputs):
                continue
            try:
                self._key[name] = self.ingredients(step).key()
            except InstarError:  # such as a declared file that is not there yet: it is said at the step's turn
                continue
        with self._store.database.read() as tx:
            found = executions.results(tx, self._project.name, set(self._key.values()))
        self._results = {key: found.get(key, []) for key in self._key.values()}


def runs(step: Step) -> bool:
    """Is it run by us? A source without a path is fed from outside."""
    return step.kind != "source" or bool(step.options.get("path"))


def current(
    project: Project, pipeline: Pipeline, kinds: Mapping[str, StepKind], names: Iterable[str]
) -> dict[str, str | None]:
    """Content digest of the current output of each step; None where there is none."""
    grouped: dict[int, tuple[Any, list[str]]] = {}
    for name in names:
        kind = kinds[pipeline.steps[name].kind]
        grouped.setdefault(id(kind), (kind, []))[1].append(name)
    found: dict[str, str | None] = {}
    for kind, members in grouped.values():
        if isinstance(kind, ReadsMany):
            many = kind.digests(project, members)
            found.update({name: many.get(name) for name in members})
        else:
            found.update({name: kind.digest(project, name) for name in members})
    return found
