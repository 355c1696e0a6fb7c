"""A person looks at a version outside the loop: finds it by any name, has it judged anew, approves it.

The loop does this by itself for what it fits (`proposal`); here somebody asks for one version, on the newest data.
"""

from __future__ import annotations

from datetime import datetime

from instar.core.errors import BadInput, Conflict
from instar.core.store import Store
from instar.data import tables
from instar.evaluate.evaluation import Evaluation, get_evaluation
from instar.evaluate.judging import Opponent, evaluate
from instar.evaluate.split import cut
from instar.operate.proposal import Loop, champion_of, known_rows
from instar.plan.project import Project
from instar.release import approval, registry, scan
from instar.release.registry import ModelVersion
from instar.serve.publishing import trial
from instar.serve.traffic import derived
from instar.train.bundle import BROUGHT, load_manifest


def find_version(store: Store, project: str, ref: str) -> ModelVersion:
    """The version that a reference names; `champion` and `challenger` follow from the endpoint's policy.

    Raises:
        NotFound: Nothing has that name.
    """
    return registry.find(store, project, ref, derived.derive(store, project))


def names_of(store: Store, project: str, model: str) -> dict[int, list[str]]:
    """All names of a model's versions by number: those that follow from the policy first, then the aliases."""
    named: dict[int, list[str]] = {}
    for name in registry.DERIVED:
        number = derived.champion_of(store, model, name, project)
        if number:
            named.setdefault(number, []).append(name)
    for name, number in registry.aliases(store, project, model).items():
        named.setdefault(number, []).append(name)
    return named


def judge_again(loop: Loop, version: ModelVersion, cause: str = "user") -> Evaluation:
    """Evaluate a registered version on the newest version of its gold table, against what answers today.

    An approved version keeps the evidence that it was approved on; any other refers to this one from now on.

    Raises:
        BadInput: The contract has no problem of the model's name.
    """
    store = loop.store
    problem = loop.project.contract.problem.get(version.model)
    if load_manifest(store.blobs, version.bundle).kind in BROUGHT:
        raise BadInput(
            "a model that was logged, or brought as a file, is judged by no gates", subject=version.name,
            next_step=f"Serve it on an endpoint of its own: instar approve {version.name}",
        )  # fmt: skip
    if problem is None or loop.project.name != version.project:
        raise BadInput(
            "the contract has no problem of that name, so there are no gates to judge it by",
            subject=version.name,
            asked=", ".join(loop.project.contract.problem),
            next_step="Evaluate it in the project whose problem it solves.",
        )
    manifest = load_manifest(store.blobs, version.bundle)
    source = tables.get(store, version.project, manifest.fitted_on)
    newest = tables.latest(store, version.project, source.table) or source
    rows, event_time = known_rows(loop, problem, manifest, newest)
    champion = champion_of(loop, version.model)
    beaten = champion if champion is not None and champion.id != version.id else None
    found = evaluate(
        store,
        version.project,
        version.model,
        problem,
        bundle=version.bundle,
        table_version=newest.id,
        cut=cut(rows, problem.split, event_time),
        event_time=event_time,
        champion=Opponent(beaten.bundle, beaten.name) if beaten else None,
        inspect=scan.admit,
        contract=loop.project.revision,
        cause=cause,
    )
    if version.state != "approved":
        registry.register(
            store, version.project, version.model, bundle=version.bundle, origin=version.origin, evaluation=found.id
        )
    return found


def approve(
    store: Store, project: Project | None, version: ModelVersion, *, note: str = "", expires_at: datetime | None = None
) -> approval.Approval:
    """Approve a version on the evidence that it refers to, by the policy of its problem.

    A model without a problem has no gates: a person approves it, after a trial has shown that it can answer.

    Args:
        project: The contract; None where there is none.

    Raises:
        Conflict: It was never evaluated, or was logged and would be the model of a problem.
        GateFailed, Blocked, NotAllowed: As `approval.decide`.
        UnsafeModel, Unavailable, StepFailed, Damaged: As `trial.try_out`.
    """
    has_problem = project is not None and version.model in project.contract.problem
    if load_manifest(store.blobs, version.bundle).kind in BROUGHT:
        if has_problem:
            raise Conflict(
                "a model that was logged, or brought as a file, passes no gates, so it cannot be the champion of a problem",
                subject=version.name,
                next_step="Register it under another name and serve it there, or make it a step of the pipeline.",
            )
        trial.try_out(store, version.bundle)
        return approval.allow(store, version, note=note, expires_at=expires_at)
    if version.evaluation is None:
        raise Conflict(
            "there is no evidence to approve it on",
            subject=version.name,
            next_step=f"Judge it first: instar evaluate {version.name}",
        )
    problem = project.contract.problem.get(version.model) if project is not None else None
    policy = problem.retrain.approval if problem is not None else "automatic"
    found = get_evaluation(store, version.evaluation)
    return approval.decide(store, version, found, policy, note=note, expires_at=expires_at)
