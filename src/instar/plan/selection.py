"""Which steps a run is about, chosen when it is asked for: what is wanted, from where, until where.

chosen = choose(pipeline, start=["clean_flights"], until=["delay_features"])
chosen.order                                        # ["clean_flights", "delay_features"]
chosen.taken                                        # ["flights", …]: read as they are, not looked at
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from instar.core.errors import BadInput
from instar.plan.pipeline import Pipeline


@dataclass(frozen=True)
class Selection:
    """Steps of a run.

    Attributes:
        order: Steps to walk, each after its inputs.
        taken: Inputs of those that are not walked: their present output is read as it is.
    """

    order: tuple[str, ...]
    taken: tuple[str, ...] = ()


def choose(
    pipeline: Pipeline,
    targets: Iterable[str] | None = None,
    *,
    start: Iterable[str] = (),
    until: Iterable[str] = (),
    force: Iterable[str] = (),
) -> Selection:
    """The steps of a run.

    Args:
        targets: Steps that are wanted, with all that they need; None: every step.
        start: Begin with these steps: only they, and what depends on them, are walked.
        until: End with these steps: only they, and what they need, are walked.
        force: Steps that must be among them.

    Raises:
        UnknownTable: A name is no step.
        BadInput: The choices leave nothing, or leave out a step that is to be forced.
    """
    start, until = list(start), list(until)
    order = pipeline.order(targets)
    if until:
        ending = set(until).union(*(pipeline.ancestors(name) for name in until))
        order = [name for name in order if name in ending]
    if start:
        beginning = set(start).union(*(pipeline.descendants(name) for name in start))
        order = [name for name in order if name in beginning]
    if not order and pipeline.steps:
        raise BadInput(
            "no step lies between them",
            subject=f"--from {', '.join(start)} --until {', '.join(until) or 'the end'}",
            asked="a step that depends on the first and that the last needs",
            next_step="See the order of the steps: instar status",
        )
    for name in force:
        pipeline.step(name)
        if name not in order:
            raise BadInput(
                "it is to be run by force, and is not among the chosen steps",
                subject=f"step {name}",
                asked=", ".join(order),
                next_step="Leave out --target, --from or --until, or name the step there.",
            )
    walked = set(order)
    taken = {item.name: None for name in order for item in pipeline.steps[name].inputs if item.name not in walked}
    return Selection(tuple(order), tuple(taken))
