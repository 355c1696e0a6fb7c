"""Data sets and models that a run read, and models that it made, as clients say so while they train and evaluate."""

from __future__ import annotations

from collections.abc import Sequence

from instar.core.database import Transaction
from instar.core.identity import Permission
from instar.interfaces.mlflow.errors import invalid
from instar.interfaces.mlflow.frame import Call, Operation, required
from instar.interfaces.mlflow.inputs import read
from instar.interfaces.mlflow.messages import LogInputs, LogOutputs, ModelInput, ModelOutput
from instar.interfaces.mlflow.runs import active
from instar.train import datasets, model_links
from instar.train.model_links import MADE, READ

MODELS_A_REQUEST = 1000


def log_inputs(call: Call, asked: LogInputs) -> dict[str, str]:
    """Say which data sets and models a run read, all or nothing."""
    run = active(call, asked)
    models = _models(asked.models or ())

    def also(tx: Transaction) -> None:
        model_links.put_links(tx, run.id, READ, models)

    datasets.log_inputs(call.store, run.id, read(call, asked.datasets or ()), also if models else None)
    return {}


def log_outputs(call: Call, asked: LogOutputs) -> dict[str, str]:
    """Say which models a run made, and at which step."""
    run = active(call, asked)
    model_links.link(call.store, run.id, MADE, _models(asked.models or ()))
    return {}


def _models(asked: Sequence[ModelInput | ModelOutput]) -> list[tuple[str, int]]:
    if len(asked) > MODELS_A_REQUEST:
        raise invalid(f"A request can contain at most {MODELS_A_REQUEST} models. Got {len(asked)}.")
    return [
        (required(one.model_id, f"models[{place}].model_id"), one.step or 0 if isinstance(one, ModelOutput) else 0)
        for place, one in enumerate(asked)
    ]


operations = [
    Operation("POST", "runs/log-inputs", Permission.TRAIN, log_inputs, LogInputs),
    Operation("POST", "runs/outputs", Permission.TRAIN, log_outputs, LogOutputs),
]
