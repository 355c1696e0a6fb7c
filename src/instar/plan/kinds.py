"""What the runner asks of the stages after it, as a port: how outputs of one kind of step are found, read, made and kept.

`data` implements it for tables, `train` for models; `app.py` hands both to the runner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from instar.plan.executions import Execution
from instar.plan.pipeline import Input, Step
from instar.plan.project import Project


@dataclass(frozen=True)
class Stored:
    """A kept output: the id of its record, and its content digest, which consumers' keys are made of."""

    ref: str
    digest: str


class StepKind(Protocol):
    """The behaviour of one kind of step. Everything is called while the project's lease is held."""

    def digest(self, project: Project, name: str) -> str | None:
        """Content digest of the current output of the step `name`; None when it has none."""

    def load(self, project: Project, input: Input, consumer: Step) -> object:
        """The current output of the step `input.name`, pinned, in the form that `consumer` wants.

        Asked of the kind that *made* the input.

        Raises:
            NotFound: It has no output.
        """

    def run(
        self,
        project: Project,
        execution: Execution,
        step: Step,
        inputs: Mapping[str, object],
        parameters: Mapping[str, object],
    ) -> object:
        """Call the step's function; nothing is recorded yet, so a failure leaves nothing.

        A source with a `path` gets its files as `inputs["files"]`, a sorted list of `pathlib.Path`.
        """

    def store(self, project: Project, execution: Execution, step: Step, output: object) -> Stored:
        """Keep the output under the execution's key; doing it again with the same content changes nothing."""


@runtime_checkable
class Recalls(Protocol):
    """A kind that can make an earlier output current again, so that going back to old code or old data costs nothing."""

    def recall(self, project: Project, step: Step, ref: str) -> Stored | None:
        """Make the record `ref` current again; None when it is gone, and the step then runs."""


@runtime_checkable
class ReadsMany(Protocol):
    """A kind that finds the current outputs of many steps with few questions to the record."""

    def digests(self, project: Project, names: Iterable[str]) -> Mapping[str, str]:
        """Content digest of the current output of each of `names` that has one."""


@runtime_checkable
class Partitions(Protocol):
    """A kind whose outputs are made of partitions, so that a step may run once for each and again for what changed."""

    def partitions(self, project: Project, name: str) -> Mapping[str, str]:
        """Content digest of each partition of the current output, by its name; `""` names rows without a partition."""

    def load_part(self, project: Project, input: Input, consumer: Step, partition: str) -> object:
        """One partition of the current output, pinned, in the form that `consumer` wants; without rows if it has none."""

    def store_part(self, project: Project, execution: Execution, step: Step, output: object) -> Stored:
        """Keep what the function made of one partition, out of sight until all parts are joined."""

    def has_part(self, project: Project, step: Step, partition: str, part: Stored) -> bool:
        """Can this part still be joined?"""

    def join(self, project: Project, execution: Execution, step: Step, parts: Mapping[str, Stored]) -> Stored:
        """Make these parts, and no others, the step's next output: one version, in which each is a partition."""
