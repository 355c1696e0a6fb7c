"""The model card of a version: what it is, what it is for, how good it is and who allowed it, from the record alone.

Sections follow Mitchell et al., Model Cards for Model Reporting (2019); what nobody wrote down is said to be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from instar.core.errors import InstarError
from instar.core.store import Store
from instar.evaluate.evaluation import get_evaluation
from instar.release.approval import approvals
from instar.release.bars import barred
from instar.release.registry import ModelVersion, aliases, tags_of
from instar.train import own_environment, proofs
from instar.train.bundle import Column, Manifest, Tensor, Tensors, load_manifest

if TYPE_CHECKING:
    from instar.plan.project import Project


def card(store: Store, version: ModelVersion, project: Project | None = None) -> dict[str, Any]:
    """Everything on the record about one version, as JSON values.

    Args:
        project: The contract, for the objective and the problem's terms; without it those are null.
    """
    manifest = load_manifest(store.blobs, version.bundle)
    evaluation = get_evaluation(store, version.evaluation) if version.evaluation else None
    held = barred(store, version)
    with store.database.read() as tx:
        tags = tags_of(tx, [version.id]).get(version.id, {})
    contract = project.contract if project is not None else None
    problem = contract.problem.get(version.model) if contract is not None else None
    return {
        "version": version.name,
        "id": version.id,
        "state": version.state,
        "aliases": [
            name for name, number in aliases(store, version.project, version.model).items() if number == version.number
        ],
        "origin": version.origin,
        "refit_of": version.refit_of,
        "registered_by": version.registered_by,
        "description": version.description,
        "tags": tags,
        "source": version.source,
        "logged_model": version.logged_model,
        "created_at": version.created_at.isoformat(),
        "barred_until": held.until.isoformat() if held else None,
        "intended_use": {
            "objective": contract.project.objective if contract else None,
            "owner": contract.project.owner if contract else None,
            "target": manifest.target,
            "cost": msgspec.to_builtins(problem.cost) if problem else None,
            "oversight": problem.oversight if problem else None,
        },
        "model": {
            "bundle": version.bundle,
            "step": manifest.step,
            "kind": manifest.kind,
            "parameters": manifest.parameters,
            "threshold": manifest.threshold,
            "form": form_of(manifest),
            "unportable": manifest.unportable,
            "folder": _folder(manifest),
            "environment": manifest.environment,
            "own_environment": _own_environment(store, manifest),
            "run": manifest.run,
        },
        "data": {
            "fitted_on": manifest.fitted_on,
            "rows": manifest.fitted_rows,
            "from": manifest.fitted_from,
            "until": manifest.fitted_until,
        },
        # Of the run that made the model: whether somebody has shown that it can be made again.
        "reproductions": [proofs.document(one) for one in proofs.of_run(store, version.project, manifest.run)],
        "inputs": [_port(column) for column in manifest.inputs],
        "tensors": _tensor_facts(manifest.tensors),
        "evaluation": {
            "id": evaluation.id,
            "verdict": evaluation.verdict.state,
            "reason": evaluation.verdict.reason,
            "relation": evaluation.relation,
            "metrics": evaluation.metrics["candidate"],
            "checks": [
                {"name": check.name, "state": check.state, "found": check.found, "asked": check.asked, "why": check.why}
                for check in evaluation.verdict.checks
            ],
            "report": evaluation.report_html,
        }
        if evaluation
        else None,
        "approvals": [
            {
                "id": found.id,
                "state": found.state,
                "policy": found.policy,
                "approved_by": found.approved_by,
                "reason": found.reason,
                "at": found.event_at.isoformat(),
                "expires_at": found.expires_at.isoformat() if found.expires_at else None,
            }
            for found in approvals(store, version.project, version=version.id)
        ],
    }


def form_of(manifest: Manifest) -> str:
    """In which form a model is kept: portable, native, or the flavour of a logged model's folder."""
    if manifest.folder is not None:
        return manifest.folder.served_as or "folder"
    if manifest.command is not None:
        return "command"
    if manifest.plain is not None:
        return "class"
    return manifest.portable.form if manifest.portable else "native"


def _own_environment(store: Store, manifest: Manifest) -> dict[str, Any] | None:
    """How it stands with the environment that it answers from, where that is not the running one."""
    try:
        state = own_environment.state_of(store, manifest)
    except InstarError as problem:  # a bundle that somebody brought may describe none
        return {"environment": "", "state": own_environment.MISSING, "reason": str(problem)}
    return None if state is None else msgspec.to_builtins(state)


def _port(one: Column | Tensor) -> dict[str, Any]:
    """An input or output, with what values it may have in words."""
    facts: dict[str, Any] = msgspec.to_builtins(one)
    return facts | {"may_be": "any" if one.limits is None else one.limits.describe()}


def _tensor_facts(tensors: Tensors | None) -> dict[str, Any] | None:
    if tensors is None:
        return None
    facts: dict[str, Any] = msgspec.to_builtins(tensors)
    return facts | {
        "inputs": [_port(one) for one in tensors.inputs],
        "outputs": [_port(one) for one in tensors.outputs],
    }


def _folder(manifest: Manifest) -> dict[str, Any] | None:
    """What is known of a logged model's folder."""
    if manifest.folder is None:
        return None
    folder = manifest.folder
    return {
        "files": len(folder.files), "flavors": list(folder.flavors), "code": folder.code, "unservable": folder.unservable,
    }  # fmt: skip


def to_markdown(facts: dict[str, Any]) -> str:
    """The card for people, in Markdown."""
    use, model, data = facts["intended_use"], facts["model"], facts["data"]
    lines = [
        f"# Model card: {facts['version']}",
        "",
        f"{_state(facts)}; {facts['origin']}, registered by {facts['registered_by']} on {facts['created_at'][:10]}.",
        "",
        "## Intended use",
        "",
        _said(use["objective"], "No objective is on the record."),
        "",
        f"- Decides: `{use['target']}`; owner: {_said(use['owner'])}; oversight: {_said(use['oversight'])}",
        f"- Cost of mistakes: {_costs(use['cost'])}",
        "",
        "## Model",
        "",
        *_model(model),
        f"- Bundle `{model['bundle']}`, run `{model['run']}`",
        "",
        "## Data",
        "",
        f"- {data['rows']} rows of `{data['fitted_on']}`, {_said(data['from'], 'from the beginning')} to "
        f"{_said(data['until'], 'its end')}"
        if data["fitted_on"]
        else "- Not on the record with the model; its run may name data sets.",
        "",
        "## Made again",
        "",
        *([_reproduction(found) for found in facts["reproductions"]] or ["Nobody has made it again."]),
        "",
        *(_tensors(facts["tensors"]) if facts["tensors"] else _columns(facts["inputs"])),
        *_evaluation(facts["evaluation"]),
        "## Approvals",
        "",
        *([_approval(found) for found in facts["approvals"]] or ["Nobody has approved it."]),
    ]
    return "\n".join(lines) + "\n"


def _columns(inputs: list[dict[str, Any]]) -> list[str]:
    return [
        "## Inputs",
        "",
        "| input | type | missing allowed | privacy | may be |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {column['name']} | {column['datatype']} | {'yes' if column['nullable'] else 'no'} | {column['privacy']} | "
            f"{column['may_be']} |"
            for column in inputs
        ),
        "",
    ]


def _tensors(tensors: dict[str, Any]) -> list[str]:
    lines = [
        "## Tensors",
        "",
        "| tensor | type | shape | missing allowed | privacy | may be |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for what in ("inputs", "outputs"):
        for one in tensors[what]:
            name = f"{one['name']} ({what[:-1]}{', optional' if one['optional'] else ''})"
            missing = "yes" if one["nullable"] else "no"
            facts = [name, one["datatype"], str(list(one["shape"])), missing, one["privacy"], one["may_be"]]
            lines.append(f"| {' | '.join(facts)} |")
    return [*lines, "", f"- {stacked(tensors)}", ""]


def stacked(tensors: dict[str, Any]) -> str:
    """How calls of a tensor model are answered together, in words."""
    if not tensors["rows"]:
        return "A call is one prediction; calls are answered one by one."
    if not tensors["batchable"]:
        return "Each row is a prediction; calls are answered one by one."
    apart = tensors["difference"]
    exact = "equal to the last bit" if not apart else f"that differ by {apart:.1e} of the largest value at most"
    return f"Each row is a prediction; rows of several calls are answered together, with answers {exact}."


def _decides(model: dict[str, Any]) -> str:
    threshold = model["parameters"].get("threshold")
    return "" if threshold is None else f"; decides yes at a score of {threshold:.4g} or more"


def _model(model: dict[str, Any]) -> list[str]:
    folder = model["folder"]
    if model["kind"] == "command":
        return [f"- A program that somebody brought: `{' '.join(model['parameters']['command'])}`{_decides(model)}"]
    if model["kind"] == "class":
        return [f"- A class that somebody brought: `{model['parameters']['entry']}`{_decides(model)}"]
    if model["kind"] == "file":
        return [f"- Brought as a file; served from its {model['form']} form"]
    if folder is None:
        return [
            f"- Step `{model['step']}` ({model['kind']}), parameters {_parameters(model['parameters'])}",
            f"- Decides yes at a score of {model['threshold']:.4g} or more; served from its {model['form']} form",
        ]
    own = ", with Python code of its own" if folder["code"] else ""
    served = (
        f"Cannot be served: {folder['unservable']}"
        if folder["unservable"]
        else f"Served by its flavour {model['form']}"
    )
    return [
        f"- Logged by MLflow: {folder['files']} files{own}, flavours {', '.join(folder['flavors']) or 'none'}",
        f"- Parameters {_parameters(model['parameters'])}",
        f"- {served}",
    ]


def _evaluation(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["## Evaluation", "", "It was not evaluated.", ""]
    metrics = found["metrics"]
    return [
        "## Evaluation",
        "",
        f"{found['verdict'].capitalize()}: {found['reason']} (`{found['id']}`)",
        "",
        "| metric | value | 95 % interval | rows |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {_number(value['value'])} | {_number(value['low'])} to {_number(value['high'])} | {value['n']} |"
            for name, value in metrics.items()
        ),
        "",
        "| gate | state | found | asked for |",
        "| --- | --- | --- | --- |",
        *(f"| {check['name']} | {check['state']} | {check['found']} | {check['asked']} |" for check in found["checks"]),
        "",
    ]


def _state(facts: dict[str, Any]) -> str:
    named = f", known as {', '.join(facts['aliases'])}" if facts["aliases"] else ""
    held = f", barred until {facts['barred_until']}" if facts["barred_until"] else ""
    return f"{str(facts['state']).capitalize()}{named}{held}"


def _approval(found: dict[str, Any]) -> str:
    who = found["approved_by"] or "waiting for a second person"
    until = f", until {found['expires_at']}" if found["expires_at"] else ""
    return f"- {found['state']} by {who} on {found['at'][:10]}{until} ({found['policy']}): {found['reason']}"


def _reproduction(found: dict[str, Any]) -> str:
    why = f"; first cause: {found['first_cause']}" if found["first_cause"] else ""
    return f"- {found['verdict']} ({found['question']}) on {found['at'][:10]} by {found['by']} (`{found['repetition']}`){why}"


def _costs(cost: dict[str, Any] | None) -> str:
    if cost is None:
        return "not on the record"
    return f"a miss {cost['false_negative']:g}, a false alarm {cost['false_positive']:g} {cost['unit']}"


def _parameters(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in sorted(parameters.items())) or "none"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _said(value: object, otherwise: str = "not on the record") -> str:
    return otherwise if value in (None, "") else str(value)
